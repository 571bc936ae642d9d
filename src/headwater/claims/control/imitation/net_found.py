"""netFound on made up protocols: what traffic without labels is worth where labels are few.

Flows of all protocols hold the same messages, in another order. An encoder is pretrained on flows
without labels, and a linear probe learned from a few with; against the same network learned from
these labels alone.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.method import AbstractMethod
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.systems.traffic_flows import TrafficFlows
from headwater.evaluation.savings import sample_savings
from headwater.evaluation.tuning import tune
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.evidence.logs import dataset_of
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.representation.net_found import NetFound
from headwater.runs.learn import learn, seed_key
from headwater.sources.replay import Replay

_NOISE = 0.3
"""Share of the labels that are those of another protocol."""
_PLAIN, _NOISY, _TELLING = range(3)
"""Logs with labels: as they are, of which some are wrong, and told by the port as well."""
_AS_THEY_ARE, _TOLD, _MISLED = range(3)
"""Flows that are judged by: with any port, with that of the protocol, and with that of another."""
_READ_AT_ONCE = 250


class _Flows(NamedTuple):
    """Flows, `[log, row]`, and by which protocol each was made."""

    observation: Float[Array, "*batch observation"]
    protocol: Int[Array, "*batch"]


def _rows(flows: _Flows) -> Transitions:
    """A log in which the action is the protocol."""
    over = jnp.ones(flows.protocol.shape, bool)
    nothing = jnp.zeros(flows.protocol.shape)
    return Transitions(flows.observation, flows.protocol, nothing, flows.observation, over, ~over)


@eqx.filter_jit
def _drawn(task: TrafficFlows, keys: Array) -> _Flows:
    state, observation = jax.vmap(lambda key: task.reset(key=key))(keys)
    return _Flows(observation, state.protocol)


def _with_ports(task: TrafficFlows, tells: float, shift: float = 0.0) -> TrafficFlows:
    """The task with ports that say so often which protocol it is, or which it is not."""
    return with_numbers(task, port_tells=tells, port_shift=shift)


def _labelled(task: TrafficFlows, each: int, key: Array) -> _Flows:
    """`each` flows of every protocol in turn, so that any number of rows holds as many of all."""
    flows = _drawn(task, jax.random.split(key, task.protocols * (2 * each + 50)))
    found = np.asarray(flows.protocol)
    rows = [np.flatnonzero(found == protocol)[:each] for protocol in range(task.protocols)]
    return jax.tree.map(lambda x: x[np.stack(rows, axis=1).reshape(-1)], flows)


def _mislabelled(flows: _Flows, protocols: int, key: Array) -> _Flows:
    wrong_key, which_key = jax.random.split(key)
    wrong = jax.random.uniform(wrong_key, flows.protocol.shape) < _NOISE
    away = jax.random.randint(which_key, flows.protocol.shape, 1, protocols)
    return flows._replace(protocol=(flows.protocol + jnp.where(wrong, away, 0)) % protocols)


@eqx.filter_jit
def _begun(method: AbstractMethod, spaces: Spaces, key):
    return method.init(spaces, key=key)


@eqx.filter_jit
def _learned(method, spaces: Spaces, state, flows: _Flows, chosen, unit: int, batch: int, key):
    """The state after `unit` more updates on the chosen flows: with and without labels alike."""
    data = _rows(jax.tree.map(lambda x: x[chosen], flows))
    return learn(method, spaces, Replay(data, batch), unit, state=state, key=key).state


@eqx.filter_jit
def _read(method: NetFound, state: Any, flows: _Flows, key) -> tuple[_Flows, Array]:
    """The features of flows in place of what is observed, and which protocol they are told as."""
    encoding = method.encoding(state)

    def one(observation):
        return encoding(observation), method.act(state, observation, key=key, explore=False)[0]

    features, told = jax.lax.map(one, flows.observation, batch_size=_READ_AT_ONCE)
    return flows._replace(observation=features), told


class _Instance:
    """Some protocols, and flows of them: without labels, with, and to be judged by.

    All flows with labels are held in one array, three logs of as many rows and then three lists of
    as many flows to be judged by.
    """

    def __init__(self, seed: int, index: int, *, unlabelled: int, each: int, tests: int):
        known = TrafficFlows(seed=1_000 * seed + index).known
        self.task = _with_ports(TrafficFlows(automata=known), 0.0)
        self.key, *keys = jax.random.split(seed_key(seed, index), 6)
        telling, misled = _with_ports(self.task, 1.0), _with_ports(self.task, 1.0, 1.0)
        self.unlabelled = _drawn(self.task, jax.random.split(keys[0], unlabelled))
        one = jax.tree.map(lambda x: x[:, None], _rows(self.unlabelled))
        statistics = dataset_of(self.task, one).spaces.statistics
        self.spaces = dataclasses.replace(self.task.spaces, statistics=statistics)
        plain = _labelled(self.task, each, keys[1])
        noisy = _mislabelled(plain, self.task.protocols, keys[2])
        # The same flows, but for their ports.
        drawn = jax.random.split(keys[4], tests)
        judged = [_drawn(task, drawn) for task in (self.task, telling, misled)]
        logs = [plain, noisy, _labelled(telling, each, keys[3])]
        self.labelled: _Flows = jax.tree.map(lambda *x: jnp.concatenate(x), *logs, *judged)
        self.rows, self.tests = self.task.protocols * each, tests

    def chosen(self, log: int, count: int) -> Array:
        """The first rows of a log, again and again, as many as there are flows without labels."""
        return log * self.rows + jnp.arange(len(self.unlabelled.protocol)) % count

    def accuracy(self, told: Any) -> np.ndarray:
        """The share that is told, of each list of flows to be judged by."""
        right = np.asarray(told) == np.asarray(self.labelled.protocol)
        return right[3 * self.rows :].reshape(3, self.tests).mean(axis=1)


class _Trial(NamedTuple):
    """How all is learned.

    **Arguments:** `method`: how flows are read; `few`: labels of each protocol; `counts`: others,
    that tell what labels are saved; the rest: updates and batches.
    """

    method: dict[str, Any]
    few: int
    counts: tuple[int, ...]
    pretraining_updates: int
    updates: int
    probe_updates: int
    unit: int
    batch: int

    def cases(self, protocols: int) -> list[tuple[int, int]]:
        """The log and the rows of each case: three of few labels, and then those of `counts`."""
        logs = [_PLAIN, _NOISY, _TELLING] + [_PLAIN] * len(self.counts)
        counts = [self.few] * 3 + list(self.counts)
        return [(log, protocols * count) for log, count in zip(logs, counts)]

    def learned(self, method, spaces, state, flows: _Flows, chosen, updates: int, key: Array):
        """The state after so many updates, with one program for any number of them."""
        for index in range(updates // self.unit):
            given = flows, chosen, self.unit, self.batch, jax.random.fold_in(key, index)
            state = _learned(method, spaces, state, *given)
        return state

    def begun(self, instance: _Instance, hierarchy: bool, rate: float | None):
        """**Arguments:** `rate`: of learning from labels alone; `None`: pretrained."""
        method = NetFound(train_encoder=True, hierarchy=hierarchy, **self.method)
        method = with_numbers(method, learning_rate=1e-3 if rate is None else rate)
        state = _begun(method, instance.spaces, instance.key)
        if rate is None:
            flows = instance.unlabelled
            given = flows, jnp.arange(len(flows.protocol)), self.pretraining_updates, instance.key
            return method, self.learned(method, instance.spaces, state, *given)
        # As after the first task, in which nothing was learned.
        later = state.task + 1, state.acting + 1
        return method, eqx.tree_at(lambda s: (s.task, s.acting), state, later)

    def features(self, instance: _Instance, *, hierarchy: bool = True) -> _Flows:
        """What pretraining makes of the flows that have labels."""
        method, state = self.begun(instance, hierarchy, None)
        return _read(method, state, instance.labelled, instance.key)[0]

    def probe(self, instance: _Instance, features: _Flows, rate: float, cases) -> np.ndarray:
        """Accuracy of what is linear in features, `[case, test]`."""
        size = features.observation.shape[-1]
        choices = Discrete(instance.task.protocols)
        spaces = Spaces(Box((-1.0,) * size, (1.0,) * size), choices)
        method = BC(hidden_sizes=(), normalise_observations=False)
        method, key = with_numbers(method, learning_rate=rate), instance.key
        begun, found = _begun(method, spaces, key), []
        for case in cases:
            given = features, instance.chosen(*case), self.probe_updates, key
            state = self.learned(method, spaces, begun, *given)
            found.append(instance.accuracy(_told(method, state, features, key)))
        return np.stack(found)

    def scratch(self, instance: _Instance, rate: float, cases) -> np.ndarray:
        """Accuracy of the whole network, learned from labels alone, `[case, test]`."""
        (method, begun), found = self.begun(instance, True, rate), []
        for case in cases:
            given = instance.labelled, instance.chosen(*case), self.updates, instance.key
            state = self.learned(method, instance.spaces, begun, *given)
            told = _read(method, state, instance.labelled, instance.key)[1]
            found.append(instance.accuracy(told))
        return np.stack(found)


@eqx.filter_jit
def _told(method: BC, state: Any, features: _Flows, key) -> Array:
    act = lambda x: method.act(state, x, key=key, explore=False)[0]
    return jax.vmap(act)(features.observation)


def _few_labels(
    seed: int,
    *,
    instances: int,
    unlabelled: int,
    tests: int,
    few: int,
    counts: tuple[int, ...],
    pretraining_updates: int,
    updates: int,
    probe_updates: int,
    unit: int,
    batch: int,
    rates: tuple[float, ...],
    **sizes: int,
) -> Finding:
    """**Arguments:** `unlabelled`: flows to pretrain on, and `tests` to judge by; `few`: labels of
    each protocol, `counts`: others, for what labels are saved; `pretraining_updates`, `updates`,
    `probe_updates`: without labels, of the whole network from labels, and of a probe, `unit` of
    them in one call; `rates`: of learning, that are tried of the last two alike; `sizes`: of the
    network."""
    trial = _Trial(sizes, few, counts, pretraining_updates, updates, probe_updates, unit, batch)
    drawn = {"unlabelled": unlabelled, "each": max(few, *counts), "tests": tests}

    def scores(arm):
        """For the tuner: accuracy with few labels that are as they are, `[rate, instance]`."""

        def score(candidates, held_out: int):
            instance = _Instance(held_out, 0, **drawn)
            first, learn_with = trial.cases(instance.task.protocols)[:1], arm(instance)
            return [[learn_with(rate, first)[0, _AS_THEY_ARE]] for rate in candidates]

        return score

    def probing(instance):
        return partial(trial.probe, instance, trial.features(instance))

    from_labels = lambda instance: partial(trial.scratch, instance)
    probe_rate, whole_rate = (
        tune(rates, scores(arm), seed=seed, largest=True).value for arm in (probing, from_labels)
    )
    found: dict[str, list[np.ndarray]] = {}
    for index in range(instances):
        instance = _Instance(seed, index, **drawn)
        cases = trial.cases(instance.task.protocols)
        for name, hierarchy in (("pretrained", True), ("flat", False)):
            features = trial.features(instance, hierarchy=hierarchy)
            found.setdefault(name, []).append(trial.probe(instance, features, probe_rate, cases))
        found.setdefault("scratch", []).append(trial.scratch(instance, whole_rate, cases))
    chosen = {"of the probe": probe_rate, "of the whole network": whole_rate}
    return _finding({name: np.stack(each) for name, each in found.items()}, trial, chosen)


def _finding(found: dict[str, np.ndarray], trial: _Trial, rates: dict[str, float]) -> Finding:
    """**Arguments:** `found`: accuracies, `[instance, case, test]`."""
    few = {name: each[:, _PLAIN, _AS_THEY_ARE] for name, each in found.items()}
    noise = {name: few[name] - each[:, _NOISY, _AS_THEY_ARE] for name, each in found.items()}
    shortcut = {
        name: each[:, _TELLING, _TOLD] - each[:, _TELLING, _MISLED] for name, each in found.items()
    }
    order = np.argsort([trial.few, *trial.counts])
    labels = np.asarray([trial.few, *trial.counts])[order]
    curves = {
        name: each[:, [_PLAIN, *range(3, each.shape[1])], _AS_THEY_ARE][:, order]
        for name, each in found.items()
    }
    target = float(few["pretrained"].mean())
    saved = sample_savings(
        (labels, curves["pretrained"]), (labels, curves["scratch"]), target, hold=1
    )
    shown = lambda each: {name: mean_of(values) for name, values in each.items()}
    return Finding(
        (
            Criterion(
                f"accuracy from {trial.few} labels each, pretrained less from scratch",
                mean_of(few["pretrained"] - few["scratch"]),
                at_least=0.1,
            ),
            Criterion(
                "accuracy of the flat encoder less that of the hierarchical one",
                mean_of(few["flat"] - few["pretrained"]),
                at_most=0.0,
            ),
            Criterion(
                "what wrong labels cost, pretrained less half of that from scratch",
                mean_of(noise["pretrained"] - 0.5 * noise["scratch"]),
                at_most=0.0,
            ),
            Criterion(
                "what misleading ports cost, pretrained less half of that from scratch",
                mean_of(shortcut["pretrained"] - 0.5 * shortcut["scratch"]),
                at_most=0.0,
            ),
        ),
        {
            "accuracy from few labels": shown(few),
            "cost of wrong labels": shown(noise),
            "cost of misleading ports": shown(shortcut),
            "labels from scratch over labels when pretrained": saved.interval,
            "learning rate": rates,
        },
        {name: (labels, curve) for name, curve in curves.items()},
        across="labels of each protocol",
        up="accuracy",
        logarithmic="x",
    )


CLAIMS = (
    Claim(
        "net-found-needs-few-labels",
        "Of six protocols that send the same messages in another order, a linear probe of what "
        "netFound learned from flows without labels tells, from 10 labels of each, at least 10 "
        "points more than the same network from these labels alone, and no less than with a flat "
        "encoder of the same size; 30 % wrong labels cost it at most half as many points, and so "
        "do ports that told the protocol and then tell another. How many labels are saved is "
        "reported.",
        ("NetFound",),
        "guthula2023netfound",
        "its evaluation: wrong labels, shortcuts and the ablation of the hierarchy, with made up "
        "protocols instead of traces, and a linear probe on few labels",
        {
            "smoke": {
                "instances": 1,
                "unlabelled": 20,
                "tests": 10,
                "few": 1,
                "counts": (2,),
                "pretraining_updates": 2,
                "updates": 2,
                "probe_updates": 2,
                "unit": 2,
                "batch": 4,
                "rates": (1e-3, 1e-2),
                "width": 8,
                "embedding_size": 4,
                "num_layers": 1,
                "num_heads": 2,
            },
            "small": {
                "instances": 5,
                "unlabelled": 4_000,
                "tests": 1_000,
                "few": 10,
                "counts": (20, 40, 80),
                "pretraining_updates": 1_500,
                "updates": 200,
                "probe_updates": 400,
                "unit": 100,
                "batch": 32,
                "rates": (1e-3, 3e-3, 1e-2),
                "width": 24,
                "embedding_size": 24,
            },
        },
        _few_labels,
        learned=(
            "Fails with seed 0: the probe told 0.42 and what was learned from labels alone 0.66; "
            "from 80 labels of each 0.45 and 0.89. The features do not hold the protocol in a form "
            "that is linear: on another instance 9,000 updates of pretraining instead of 1,500 "
            "left the probe where it was (0.39 to 0.46), with ten labels as with 80, and 96 "
            "features instead of 24 raised it to 0.55 and 0.57. The fields hidden follow from the "
            "rest of their burst; it is the exchanged burst alone that asks for the order of "
            "messages. Wrong labels cost the probe 0.04 and the whole network 0.28, misleading "
            "ports 0.05 and 0.24, which is in part because the probe has less to lose. The paper "
            "fine-tunes the encoder, which is not tried here."
        ),
    ),
)
