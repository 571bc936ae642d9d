"""Exact returns and regret, against sums over all trajectories."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.exact import (
    ExactReturn,
    best_return,
    cumulative,
    regret_of,
    returns_of,
)
from headwater.methods.tabular.online.ucbvi import UCBVI
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes


def by_hand(process, policy) -> float:
    """Expected return as a sum over every trajectory."""
    total = 0.0
    p, r, i, pi = (np.asarray(x) for x in (*jax.tree.leaves(process)[:3], policy))
    horizon, states, actions = r.shape
    for s in itertools.product(range(states), repeat=horizon + 1):
        for a in itertools.product(range(actions), repeat=horizon):
            chance, earned = i[s[0]], 0.0
            for h in range(horizon):
                chance *= pi[h, s[h], a[h]] * p[h, s[h], a[h], s[h + 1]]
                earned += r[h, s[h], a[h]]
            total += chance * earned
    return total


@pytest.fixture(scope="module")
def process():
    return random_process(states=2, actions=2, horizon=3, key=jax.random.key(0))


def test_returns_are_sums_over_trajectories(process):
    policies = jax.random.dirichlet(jax.random.key(1), jnp.ones(2), (4, 3, 2))
    found = np.asarray(returns_of(process, policies))
    np.testing.assert_allclose(found, [by_hand(process, p) for p in policies], rtol=1e-5)


def test_the_best_return_is_that_of_the_best_deterministic_policy(process):
    tables = [
        np.eye(2)[np.asarray(choice).reshape(3, 2)]
        for choice in itertools.product(range(2), repeat=6)
    ]
    best = max(by_hand(process, table) for table in tables)
    np.testing.assert_allclose(float(best_return(process)), best, rtol=1e-5)


def test_tasks_are_judged_each_by_its_own_model(process):
    other = random_process(states=2, actions=2, horizon=3, key=jax.random.key(9))
    both = jax.tree.map(lambda *x: jnp.stack(x), process, other)
    policies = jax.random.dirichlet(jax.random.key(1), jnp.ones(2), (2, 5, 3, 2))
    found = returns_of(both, policies)
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found[1], returns_of(other, policies[1]), rtol=1e-6)
    np.testing.assert_allclose(best_return(both), [best_return(process), best_return(other)])


def test_regret_adds_up_over_a_run(process):
    method = UCBVI(bonus_scale=0.01)
    measure = regret_of(process)
    stage = Stage("learn", method, FreshEpisodes(process), 30, measure=measure)
    result = run([stage], process.problem(), seeds=2, logs=3, evaluate=ExactReturn(process))
    updates, regret = cumulative(result.metrics)
    assert updates[-1] == 30 and regret.shape == (2, len(updates))
    # Once more by hand, one episode after the other.
    stepwise = run([stage], process.problem(), seeds=2, logs=30)
    each = np.asarray([row["metrics"]["regret"] for row in stepwise.metrics])
    np.testing.assert_allclose(regret[:, -1], each.sum(0), rtol=1e-4)
    last = Agent(method, jax.tree.map(lambda x: x[0], result.outcomes["learn"].state))
    exact = float(returns_of(process, last.policy(explore=False)))
    rows = [row for row in result.evaluations if row["seed"] == 0]
    np.testing.assert_allclose(rows[-1]["returns"], [exact], rtol=1e-5)
    with pytest.raises(SpecificationError, match="logged no gain"):
        cumulative(result.metrics, "gain")
