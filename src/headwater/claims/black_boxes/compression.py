"""What policies that remove and shrink layers are worth, beside random architectures."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Transitions
from headwater.environments.black_boxes.compression import Compression
from headwater.evaluation.black_boxes.recommended import worth_of_queries
from headwater.evaluation.savings import sample_savings
from headwater.evaluation.statistics import interval
from headwater.evaluation.tuning import tune
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.evidence.digits import SPACES, digits
from headwater.methods.black_boxes.n2n import N2N
from headwater.methods.black_boxes.random_search import RandomSearch
from headwater.methods.control.imitation.bc import BC
from headwater.runs.learn import learn
from headwater.sources.queries import RememberedQueries
from headwater.sources.replay import Replay, take

_CHILDREN = 5
_LAST = 10
_TRAINING, _VALIDATION = 1_000, 397


def _taught(
    number: int, widths: tuple[int, ...], updates: int, steps: int
) -> tuple[Compression, Transitions]:
    """The compression of a teacher of digits, and rows that neither it nor a student has seen."""
    data, others = digits(number, _TRAINING)
    judged, unseen = take(others, slice(0, _VALIDATION)), take(others, slice(_VALIDATION, None))
    method = BC(learning_rate=1e-3, normalise_observations=False, hidden_sizes=widths)
    train = eqx.filter_jit(learn)
    state = train(method, SPACES, Replay(data, 64), updates, key=jax.random.key(number)).state
    teacher = state.actor.network
    given: dict[str, Any] = {
        "weights": teacher.weights,
        "biases": teacher.biases,
        "inputs": data.observation,
        "validation_inputs": judged.observation,
        "validation_labels": jnp.asarray(judged.action, jnp.int32),
        "learning_rate": 0.01,
        "distillation_steps": steps,
        "batch_size": 32,
        "seed": jnp.asarray(number, jnp.int32),
    }
    return Compression(**given), unseen


@eqx.filter_jit
def _search(method: AbstractMethod, box: Compression, iterations: int, key, state: Any = None):
    room = _CHILDREN * iterations
    source = RememberedQueries(box, _CHILDREN, room)
    space = dataclasses.replace(box.space, capacity=room)
    measure, every = worth_of_queries, 1
    return learn(
        method, space, source, iterations, measure=measure, every=every, state=state, key=key
    )


def _rewards(learned) -> np.ndarray:
    """The mean reward of the children of each iteration."""
    return np.asarray(learned.sums["value"], np.float64)


def _best(learned, different: int) -> float:
    """The best reward of the first so many different architectures."""
    return float(np.max(np.asarray(learned.source_state.value)[:different]))


def _tuned(
    seed: int, rates: tuple[tuple[float, float], ...], removal: int, iterations: int, **teacher: Any
) -> N2N:
    """N2N with the learning rates whose last rewards are highest, on a teacher held out."""
    methods = [
        with_numbers(
            N2N(removal_updates=removal), removal_learning_rate=a, shrinkage_learning_rate=b
        )
        for a, b in rates
    ]

    def score(methods, seed):
        box, _ = _taught(seed, **teacher)
        runs = [_search(method, box, iterations, jax.random.key(seed)) for method in methods]
        return [[_rewards(run)[-_LAST:].mean()] for run in runs]

    return tune(methods, score, seed=seed, largest=True).value


def _numbers(seed: int, instances: int) -> list[int]:
    return [instances * seed + instance for instance in range(instances)]


def _compressed(
    seed: int,
    *,
    instances: int,
    widths: tuple[int, ...],
    updates: int,
    steps: int,
    removal: int,
    iterations: int,
    rates: tuple[tuple[float, float], ...],
) -> Finding:
    teacher: dict[str, Any] = {"widths": widths, "updates": updates, "steps": steps}
    method = _tuned(seed, rates, removal, iterations, **teacher)
    random = RandomSearch(hyperparameters="given")
    # Removal knows so few architectures, and shrinkage makes at most one with each child.
    few = min(2 ** (len(widths) - 1), _CHILDREN * removal)
    enough = math.ceil(few / _CHILDREN) + iterations - removal
    found: dict[str, list[float]] = {}
    curves: list[np.ndarray] = []
    for number in _numbers(seed, instances):
        box, unseen = _taught(number, **teacher)
        teaching, key = box.reset(), jax.random.key(number)
        run = _search(method, box, iterations, key)
        rewards, different = _rewards(run), int(run.source_state.count)
        curves.append(rewards)
        student = box.network(np.asarray(run.state.best, np.float64))
        size = sum(array.size for array in jax.tree.leaves(student))

        def named(network):
            logits = box.output(network, unseen.observation)  # noqa: B023 (called at once)
            return float(jnp.mean(jnp.argmax(logits, axis=1) == unseen.action))  # noqa: B023

        best = _best(run, different)
        other = _search(random, box, enough, key)
        for name, value in (
            ("times smaller", int(teaching.parameters) / size),
            ("lost", named(type(student)(box.weights, box.biases)) - named(student)),
            ("gain", rewards[-_LAST:].mean() - rewards[0]),
            ("best", best),
            ("different", different),
            ("random", best - _best(other, different)),
            ("teacher", float(teaching.accuracy)),
        ):
            found.setdefault(name, []).append(value)
    median = interval(found["random"], "median")
    return Finding(
        (
            Criterion("times smaller", mean_of(found["times smaller"]), at_least=5.0),
            Criterion("accuracy lost on rows unseen", mean_of(found["lost"]), at_most=0.02),
            Criterion("reward above the first iteration's", mean_of(found["gain"]), at_least=0.15),
            Criterion("best reward less random search's, median", median, at_least=0.0),
        ),
        numbers={
            "learning rates": [
                float(method.removal_learning_rate),
                float(method.shrinkage_learning_rate),
            ],
            "best reward": mean_of(found["best"]),
            "different architectures": found["different"],
            "best reward less random search's": found["random"],
            "accuracy of teachers": found["teacher"],
            "times smaller, each": found["times smaller"],
        },
        curves={"N2N": (_CHILDREN * np.arange(1, iterations + 1), np.stack(curves))},
        across="architectures",
        up="mean reward of five",
    )


def _transferred(
    seed: int,
    *,
    instances: int,
    small: tuple[int, ...],
    widths: tuple[int, ...],
    updates: int,
    steps: int,
    removal: int,
    iterations: int,
    target: float,
    rates: tuple[float, float],
) -> Finding:
    method = N2N(
        removal_learning_rate=rates[0], shrinkage_learning_rate=rates[1], removal_updates=removal
    )
    curves: dict[str, list[np.ndarray]] = {"from scratch": [], "pretrained": []}
    for number in _numbers(seed, instances):
        key, box = jax.random.key(number), _taught(number, widths, updates, steps)[0]
        smaller = _taught(number, small, updates, steps)[0]
        before = method.init(smaller.space, key=key)
        agent = Agent(method, _search(method, smaller, iterations, key, before).state)
        begun = {
            "from scratch": method.init(box.space, key=key),
            "pretrained": method.warm_start(agent, box.space, key=key),
        }
        for name, state in begun.items():
            curves[name].append(_rewards(_search(method, box, iterations, key, state)))
    steps_taken = _CHILDREN * np.arange(1, iterations + 1)
    by_name = {name: (steps_taken, np.stack(rows)) for name, rows in curves.items()}
    savings = sample_savings(by_name["pretrained"], by_name["from scratch"], target)
    return Finding(
        (Criterion("times fewer evaluations to the target", savings.interval, at_least=2.0),),
        numbers={
            "savings": savings.plain(),
            "reward of the first iteration": {
                name: mean_of(rows[:, 0]) for name, (_, rows) in by_name.items()
            },
        },
        curves=by_name,
        across="architectures",
        up="mean reward of five",
    )


_SMOKE: dict[str, Any] = {
    "instances": 2,
    "updates": 20,
    "steps": 5,
    "removal": 1,
    "iterations": 2,
}
_SMALL: dict[str, Any] = {
    "instances": 5,
    "widths": (64,) * 5,
    "updates": 1_000,
    "steps": 200,
    "removal": 20,
    "iterations": 40,
}

CLAIMS = (
    Claim(
        name="policies-compress-a-network",
        statement="Of teachers of digits with five hidden layers of 64 units, 40 iterations with 5 "
        "children find students that are at least 5 times smaller and lose at most 2 points of "
        "accuracy on rows unseen; the mean reward of the last 10 iterations is at least 0.15 above "
        "that of the first, and the best reward is at least that of random search after as many "
        "different architectures, in the median over 5 teachers.",
        methods=("N2N", "RandomSearch"),
        paper="ashok2018n2n",
        where="abstract, in words (more than 10 times smaller at about the teacher's accuracy); "
        "digits, sizes, thresholds and random search are a reproduction's",
        scales={
            "smoke": {**_SMOKE, "widths": (6, 5), "rates": ((0.03, 0.03),)},
            "small": {**_SMALL, "rates": ((0.003, 0.1), (0.03, 0.03))},
        },
        experiment=_compressed,
        learned="With seed 0 (no other was run) students are 6.8 [5.6, 8.4] times smaller and "
        "lose 7.4 [4.2, 10.9] points on rows unseen, not 2: the student of the highest reward is "
        "judged, and the reward falls slowly with accuracy; nor are 200 steps of squared errors of "
        "logits much training, while the paper's students train five epochs of larger data. The "
        "rate of 0.1 of the authors' code won on the teacher held out, and with it shrinkage "
        "settles after about five architectures (21 or 22 different ones of 200 in all), so that "
        "it looks at few. After as many, the best reward is 0.016 [-0.019, 0.092] above random "
        "search's in the median of five teachers, and above it on four: too few to tell.",
    ),
    Claim(
        name="policies-of-a-small-network-go-on-with-a-larger-one",
        statement="Policies that compressed teachers of digits with three hidden layers of 32 "
        "units hold a mean reward of 0.9 on teachers with five of 64 after at most half as many "
        "architectures as policies that begin anew.",
        methods=("N2N",),
        paper="ashok2018n2n",
        where="abstract, in words (policies that were learned on small teachers rapidly speed up "
        "training on larger ones); the factor and the target are a reproduction's",
        scales={
            "smoke": {
                **_SMOKE,
                "small": (6, 5),
                "widths": (6, 5),
                "target": 0.9,
                "rates": (0.03, 0.03),
            },
            "small": {**_SMALL, "small": (32,) * 3, "target": 0.9, "rates": (0.03, 0.03)},
        },
        experiment=_transferred,
        learned="It was run at the smallest scale alone so far, which says nothing of it.",
    ),
)
