"""What pessimism is worth when all there is are logged comparisons."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.hypotheses import FiniteHypotheses
from headwater.environments.linear.linear_reward import random_linear_rewards
from headwater.evaluation.statistics import frequency
from headwater.evaluation.tuning import choose
from headwater.evidence.claim import (
    Claim,
    Criterion,
    Finding,
    mean_of,
    ratio_of_means,
    with_numbers,
)
from headwater.methods.preference.enumerated_freehand import EnumeratedFREEHAND
from headwater.methods.preference.freehand import FREEHAND
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.runs.learn import learn
from headwater.sources.comparisons import BradleyTerryJudge, LoggedComparisons, log_comparisons

_NOISE = (0.1, 0.3, 0.9)
"""Shares of random actions. With the last, both episodes come from the same policy."""
_RIDGES = (0.1, 1.0, 10.0)
_WIDTHS = (0.0, 2.0)
"""The plain estimate and the method; each gets the ridge that is best for it elsewhere."""


def _task(key, noise, comparisons: int):
    """A process, its best return, and a log of a noisy good policy against a noisy other one."""
    task_key, other_key, log_key = jax.random.split(key, 3)
    task = random_linear_rewards(states=6, actions=3, horizon=5, features=8, key=task_key)
    process = task.process
    good = optimal_values(process)
    drawn = jax.random.normal(other_key, process.reward.shape)
    other = optimal_values(dataclasses.replace(process, reward=drawn)).policy
    other = jnp.where(noise > 0.5, good.policy, other)
    first, second = ((1 - noise) * p + noise / process.actions for p in (good.policy, other))
    judge = BradleyTerryJudge(process.reward)
    data = log_comparisons(process, judge, first, second, comparisons=comparisons, key=log_key)
    return task, jnp.dot(process.initial, good.value[0]), data


def _gaps(key, noise, comparisons: int):
    """Suboptimality `[width, ridge]`, and what the plans are short of at most."""
    task, best, data = _task(key, noise, comparisons)

    def one(width, ridge):
        method = with_numbers(FREEHAND(num_iterations=50), confidence_radius=width, ridge=ridge)
        state = method.init_with_model(task.problem(), task.process.transition)
        source = LoggedComparisons(data)
        found = learn(method, task.problem(), source, 1, state=state, key=key)
        return best - expected_return(task.process, found.state.table), found.sums["gap"][0]

    widths, ridges = jnp.meshgrid(jnp.asarray(_WIDTHS), jnp.asarray(_RIDGES), indexing="ij")
    return jax.vmap(jax.vmap(one))(widths, ridges)


def _experiment(seed: int, instances: int, sizes: tuple[int, ...]) -> Finding:
    tuning, testing = np.split(np.arange(2 * instances), 2)
    keys = jax.random.split(jax.random.key(seed), 2 * instances)
    criteria, numbers = [], {}
    for size in sizes:
        each = jax.vmap(jax.vmap(partial(_gaps, comparisons=size), (None, 0)), (0, None))
        found = jax.jit(each)(keys, jnp.asarray(_NOISE))
        gaps, missing = (np.asarray(x, np.float64) for x in found)
        numbers[f"{size} comparisons: most that a plan is short of its maximum"] = float(
            missing.max()
        )
        for place, noise in enumerate(_NOISE):
            cell = gaps[:, place]
            best = [choose(cell[tuning, arm].T) for arm in (0, 1)]
            plain, method = (cell[testing, arm, best[arm]] for arm in (0, 1))
            numbers[f"{size} comparisons, {noise:g} random actions, by ridge 0.1, 1, 10"] = {
                f"width {width:g}": cell[testing, arm].mean(axis=0).tolist()
                for arm, width in enumerate(_WIDTHS)
            }
            if noise < 0.5:
                what = "suboptimality of pessimism over the estimate's"
                what = f"{what}, {size} comparisons, {noise:g} random actions"
                criteria.append(Criterion(what, ratio_of_means(method, plain), at_most=0.65))
            elif size >= 300:
                what = f"what pessimism loses where all is covered alike, {size} comparisons"
                criteria.append(Criterion(what, mean_of(method - plain), at_most=0.05))
    return Finding(tuple(criteria), numbers)


def _enumerated(seed: int, instances: int, comparisons: int, members: int) -> Finding:
    def one(key):
        task, best, data = _task(key, 0.1, comparisons)
        process = task.process
        weights = jax.random.normal(jax.random.fold_in(key, 1), (members - 1, 8))
        weights *= 3.0 / jnp.linalg.norm(weights, axis=-1, keepdims=True)
        weights = jnp.concatenate([task.weights[None], weights])
        given = FiniteHypotheses(
            task.problem(),
            jnp.einsum("hsaf,mf->mhsa", task.features, weights),
            process.transition[None],
        )

        def gap(failure):
            method = with_numbers(
                EnumeratedFREEHAND(num_iterations=300), failure_probability=failure
            )
            state = learn(method, given, LoggedComparisons(data), 1, key=key).state
            return best - expected_return(process, state.table), state.rewards_possible[0]

        # With so much failure allowed, only the most likely reward is left.
        return jax.vmap(gap)(jnp.asarray([0.1, 2.0 * members]))

    keys = jax.random.split(jax.random.key(seed), instances)
    gaps, held = (np.asarray(x, np.float64) for x in jax.jit(jax.vmap(one))(keys))
    return Finding(
        (
            Criterion(
                "how often the true reward is among those left possible, at failure 0.1",
                frequency(int(held[:, 0].sum()), instances),
                at_least=0.9,
            ),
            Criterion(
                "suboptimality over that of planning for the most likely reward",
                ratio_of_means(gaps[:, 0], gaps[:, 1]),
                at_most=0.65,
            ),
        ),
        {"mean suboptimality, pessimistic and most likely": gaps.mean(axis=0).tolist()},
    )


_PAPER = "zhan2024offline"

CLAIMS = (
    Claim(
        name="freehand-needs-one-covered-policy",
        statement=(
            "Where the log covers a good policy, planning for the worst reward that the "
            "comparisons allow leaves at most 0.65 of the suboptimality of planning for the "
            "estimated reward; where the log covers all policies alike it costs at most 0.05 at "
            "300 comparisons."
        ),
        methods=("FREEHAND",),
        paper=_PAPER,
        where="a consequence of Theorem 1 (single-policy coverage); the paper has no experiments",
        scales={
            "smoke": {"instances": 6, "sizes": (30,)},
            "small": {"instances": 40, "sizes": (30, 300)},
        },
        experiment=_experiment,
        learned=(
            "With 300 comparisons pessimism leaves 0.16 and 0.46 of the suboptimality (10 % and "
            "30 % random actions). With 30 it leaves 0.69 and 0.76, with intervals that reach "
            "beyond 1: a strong ridge, which the plain estimate may choose here, does much of the "
            "same work. Where both episodes come from the same nearly random policy pessimism "
            "hurts at 30 comparisons; the numbers keep that loss."
        ),
    ),
    Claim(
        name="freehand-exact-sets",
        statement=(
            "The level set of the likelihood contains the true reward at least as often as "
            "promised, and planning for its worst member leaves at most 0.65 of the suboptimality "
            "of planning for the most likely reward."
        ),
        methods=("EnumeratedFREEHAND",),
        paper=_PAPER,
        where="a consequence of Theorem 1; the paper has no experiments",
        scales={
            "smoke": {"instances": 16, "comparisons": 20, "members": 16},
            "small": {"instances": 200, "comparisons": 20, "members": 64},
        },
        experiment=_enumerated,
    ),
)
