"""Learning rates that are chosen on the way, against constants and cosines at equal cost."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.methods.control.imitation.bc import BC, BCState
from headwater.runs.learn import learn
from headwater.runs.recipes.learning_rates import train_with_chosen_rates
from headwater.sources.replay import Replay

_SIZE, _TEACHER, _NOISE, _HELD_OUT = 8, 32, 0.1, 4_096
"""Of what is learned: inputs, hidden units of the network that makes the data, the standard
deviation of the noise on what it says, and rows that are not learned from."""
_SPACES = Spaces(Box((-float("inf"),) * _SIZE, (float("inf"),) * _SIZE), Box((-1.0,), (1.0,)))
_ROW = 20
"""Updates with the same rate in a schedule."""


def _rows(random: np.random.Generator, count: int) -> tuple[Transitions, Transitions]:
    """What a random network says of random inputs, with noise: to learn from, and held out."""
    first = random.normal(size=(_SIZE, _TEACHER)) / _SIZE**0.5
    second = random.normal(size=(_TEACHER, 1)) / _TEACHER**0.5
    inputs = random.normal(size=(count + _HELD_OUT, _SIZE))
    said = 0.8 * np.tanh(np.tanh(2.0 * inputs @ first) @ second)
    said = np.clip(said + _NOISE * random.normal(size=said.shape), -1.0, 1.0)
    none, no = np.zeros(len(inputs)), np.zeros(len(inputs), bool)
    inputs, said, none = (jnp.asarray(x, jnp.float32) for x in (inputs, said, none))
    both = Transitions(inputs, said, none, inputs, jnp.asarray(no), jnp.asarray(no))
    return jax.tree.map(lambda x: x[:count], both), jax.tree.map(lambda x: x[count:], both)


def _copies(state: BCState, count: int) -> BCState:
    return jax.tree.map(lambda x: jnp.stack([x] * count), state)


def _trained(method: BC, source: Replay, states: BCState, rates: np.ndarray, key: PRNGKeyArray):
    """The states `[schedule, …]` after more updates at the `rates` `[schedule, row]`."""
    for row in range(rates.shape[1]):
        now = jnp.asarray(rates[:, row], jnp.float32)
        states = _one_row(method, source, states, now, jax.random.fold_in(key, row))
    return states


@eqx.filter_jit
def _one_row(method, source, states, rates, key):
    def one(state, rate):
        now = eqx.tree_at(lambda m: m.learning_rate, method, rate)
        return learn(now, _SPACES, source, _ROW, state=state, key=key).state

    return jax.vmap(one)(states, rates)


@eqx.filter_jit
def _errors(method, states, rows) -> Float[Array, " schedule"]:
    return jax.vmap(lambda state: jnp.mean(method.losses(state, rows)))(states)


def _chosen(
    seed: int,
    *,
    instances: int,
    rows: int,
    updates: int,
    stages: int,
    candidates: int,
    rates: Sequence[float],
    batch: int = 64,
    widths: tuple[int, ...] = (32, 32),
) -> Finding:
    method = BC(normalise_observations=False, hidden_sizes=widths)
    # Each of the rates that are tried costs a tenth of the stage, and so does a rate of zero.
    alone, total = stages * updates // _ROW, stages * (11 + candidates) * updates // (10 * _ROW)
    falling = 0.5 * (1.0 + np.cos(np.pi * (np.arange(total) + 0.5) / total))
    constants = np.tile(np.asarray(rates)[:, None], (1, total))
    plans = np.concatenate([constants, constants * falling])
    found, last, shorter, ranks, taken = [], [], [], [], []
    for index in range(instances):
        data, held_out = _rows(np.random.default_rng((seed, index)), rows)
        source = Replay(data, batch)
        init_key, first_key, rest_key, key = jax.random.split(
            jax.random.fold_in(jax.random.key(seed), index), 4
        )
        state = method.init(_SPACES, key=init_key)
        part = _trained(method, source, _copies(state, len(plans)), plans[:, :alone], first_key)
        shorter.append(_finite(_errors(method, part, held_out))[: len(rates)])
        whole = _trained(method, source, part, plans[:, alone:], rest_key)
        last.append(_finite(_errors(method, whole, held_out)))
        for stage in range(stages):
            stage_key, truth_key = jax.random.split(jax.random.fold_in(key, stage))
            trained = train_with_chosen_rates(
                *(method, _SPACES, source),
                loss="actor_loss", updates=updates, longest=updates, stages=1,
                candidates=candidates, state=state, key=stage_key,
            )  # fmt: skip
            (chosen,) = trained.stages
            tried = np.asarray([each.learning_rate for each in chosen.tried])
            constant = np.tile(tried[:, None], (1, updates // _ROW))
            ends = _trained(method, source, _copies(state, candidates), constant, truth_key)
            # Of all rows that are learned from, as it is their loss that was forecast.
            true = _finite(_errors(method, ends, data))
            forecasts = [each.forecast for each in chosen.tried]
            ranks.append(scipy.stats.spearmanr(forecasts, true)[0])
            taken.append(chosen.learning_rate)
            state = trained.state
        found.append(float(jnp.mean(method.losses(state, held_out))))
    ours, as_long = np.asarray(found), np.asarray(shorter)
    fixed, cosine = np.split(np.asarray(last), 2, axis=1)
    order = np.argsort(fixed.mean(0))
    best, median = order[0], order[len(order) // 2]
    best_cosine, best_as_long = np.argmin(cosine.mean(0)), np.argmin(as_long.mean(0))
    by_instance = np.reshape(ranks, (instances, stages)).mean(1)
    return Finding(
        (
            Criterion(
                f"error over that of the best of {len(rates)} constants at equal cost",
                ratio_of_means(ours, fixed[:, best]),
                at_most=1.2,
            ),
            Criterion(
                "error over that of the median constant at equal cost",
                ratio_of_means(ours, fixed[:, median]),
                at_most=1.0,
            ),
            Criterion(
                "rank correlation of forecasts with losses at the end of the stage",
                mean_of(by_instance),
                at_least=0.6,
            ),
        ),
        {
            "error": ours.tolist(),
            "error over that of the best cosine at equal cost": ratio_of_means(
                ours, cosine[:, best_cosine]
            ),
            "error over that of the best constant, trained as long without a search": (
                ratio_of_means(ours, as_long[:, best_as_long])
            ),
            "error of constants": dict(zip(map(str, rates), fixed.mean(0).tolist())),
            "error of cosines": dict(zip(map(str, rates), cosine.mean(0).tolist())),
            "rates chosen": np.reshape(taken, (instances, stages)).tolist(),
        },
    )


def _finite(errors) -> np.ndarray:
    """What diverged counts as the worst."""
    errors = np.asarray(errors, np.float64)
    return np.where(np.isfinite(errors), errors, 1e9)


CLAIMS = (
    Claim(
        name="learning-rates-chosen-on-the-way-come-near-the-best",
        statement="Regressing a random network with five stages of 1,000 updates, the rates that "
        "are chosen on the way, from 1e-5 to 1, lead to at most 1.2 times the held-out error of "
        "the best of five constants that are trained for as many updates as stages and search "
        "take, and to less than that of the median of the five; the forecasts rank what is tried "
        "as the losses at the end of the stage do, with a correlation of at least 0.6.",
        methods=("BC",),
        paper="jin2021autolrs",
        where="abstract and section 4, whose networks are larger; the problem and the numbers are "
        "a reproduction's",
        scales={
            "smoke": {
                "instances": 1, "rows": 512, "updates": 200, "stages": 1, "candidates": 4,
                "rates": (1e-3, 1e-2), "widths": (8,),
            },
            "small": {
                "instances": 5, "rows": 16_384, "updates": 1_000, "stages": 5, "candidates": 10,
                "rates": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            },
        },
        experiment=_chosen,
        learned="Over seeds 0 to 4 the error is 1.12 to 1.19 times that of the best constant at "
        "equal cost and 1.03 to 1.07 times that of the median one, so that the second criterion "
        "is missed; a cosine at equal cost is better by 1.17 to 1.27. Rates fall too soon: what "
        "is best for the end of a stage is not what is best for the end of training, and from the "
        "third stage on mostly rates below 5e-4 are taken. Seeds 0 to 2 were seen before the "
        "forecast was changed: of an exponential of the loss itself, rates of 0.1 to 1 were "
        "promised less than nothing and ruined 4 of 10 trainings of seeds 1 and 2. With seed 0, "
        "where that did not happen, it came to 1.03 of the best constant.",
    ),
)  # fmt: skip
