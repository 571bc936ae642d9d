"""A small finite process and what methods must find and promise on it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.tabular.finite import random_process
from headwater.evaluation.exact import ExactReturn, best_return, cumulative, regret_of
from headwater.ops.sums import CompensatedSum
from headwater.ops.tabular.counts import Counts
from headwater.ops.tabular.planning import (
    optimal_values,
)
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes

PROCESS = dataclasses.replace(
    random_process(states=3, actions=2, horizon=3, concentration=0.5, key=jax.random.key(2)),
    noisy=True,
)


PROBLEM = PROCESS.problem()


BEST = optimal_values(PROCESS)


SEEDS, EPISODES = 200, 2000


class Measures(eqx.Module):
    """Exact regret, and whether the value of the first states is optimistic."""

    optimistic: bool = eqx.field(static=True)

    def __call__(self, agent, data):
        found = regret_of(PROCESS)(agent, data)
        if self.optimistic:
            value = PROCESS.initial @ jnp.max(agent.state.action_value[0], axis=-1)
            above = value >= PROCESS.initial @ BEST.value[0] - 1e-4
            found["optimistic"] = above.astype(jnp.float32)
        return found


def expect_best_policy(method, optimistic=True):
    """Fails unless `method` finds the best policy, and is `optimistic` if it is said to be."""
    stage = Stage("learn", method, FreshEpisodes(PROCESS), EPISODES, measure=Measures(optimistic))
    evaluate = ExactReturn(PROCESS)
    result = run([stage], PROBLEM, seeds=4, layout="vmap", evaluate=evaluate, evaluations=1, logs=2)
    final = evaluate(method, result.outcomes["learn"].state, jax.random.key(0))
    assert float(best_return(PROCESS)) - final.max() < 1e-3
    assert float(best_return(PROCESS)) - final.mean() < 0.03
    # The later half costs less than the earlier one.
    _, regret = cumulative(result.metrics)
    first, both = regret.mean(axis=0)
    assert both - first < 0.8 * first
    if optimistic:
        _, share = cumulative(result.metrics, "optimistic")
        assert share[:, -1].mean() / EPISODES > 0.99


def over_data_sets(plan, visits: int):
    """`plan` of the counts of `SEEDS` data sets, with so many visits of everything."""
    random = np.random.default_rng(visits)
    shape = (SEEDS, *PROCESS.reward.shape)
    rows = np.broadcast_to(np.asarray(PROCESS.transition, np.float64), (*shape, PROCESS.states))
    following = random.multinomial(visits, rows / rows.sum(-1, keepdims=True))
    reward = random.binomial(visits, np.asarray(PROCESS.reward, np.float64), shape)
    # Of rewards of zero and one the squares add up to the same.
    sums = jnp.asarray(np.stack([reward, reward], axis=-1), jnp.float32)
    numbers = (jnp.asarray(x, jnp.int32) for x in (np.full(shape, visits), following))

    def one(visits, following, sums):
        return plan(Counts(visits, following, CompensatedSum(sums, jnp.zeros_like(sums))))

    return jax.jit(jax.vmap(one))(*numbers, sums)


HIGHEST = jnp.full(PROCESS.reward.shape, float(PROCESS.horizon))


def expect_optimistic_plans(plan, visits: int):
    """At the theorem's scale in all but a share of δ; the visits are enough to be below the cap.

    `plan` makes values of counts.
    """
    values = over_data_sets(plan, visits)
    assert float(jnp.mean(values[:, 0] < 0.95 * PROCESS.horizon)) > 0.5
    share = jnp.mean(jnp.all(values >= BEST.action_value[None] - 1e-4, axis=(1, 2, 3)))
    assert share >= 0.9
