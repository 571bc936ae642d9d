"""PEVI against its equations, against LSVI-UCB, and on linear processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.evaluation.exact import best_return
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.ops.tabular.planning import (
    expected_return,
    occupancy,
    optimal_values,
    uniform_policy,
)
from headwater.sources.episodes import log_episodes

from .linear_problems import BEST, LINEAR, learned, logged, shrunk
from .linear_twin import (
    ACTIONS,
    EPISODES,
    HORIZON,
    SIZE,
    STATES,
    expect_other_features_refused,
    given,
    transcribed,
)


@pytest.fixture(scope="module", name="given")
def _given():
    return given()


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
def test_pevi(given, known):
    features, *columns = given
    reward = np.random.default_rng(1).uniform(size=(HORIZON, STATES, ACTIONS)).astype(np.float32)
    problem = FiniteProblem(
        STATES, ACTIONS, HORIZON, reward=jax.numpy.asarray(reward) if known else None
    )
    method = PEVI(penalty_scale=0.02, ridge=0.7, failure_probability=0.2, max_return=0.5)
    data = Episodes(*columns)
    state = method.with_features(problem, jax.numpy.asarray(features))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    once = update(state, data)
    highest = 0.5 * HORIZON
    beta = 0.02 * SIZE * highest * np.sqrt(np.log(2 * SIZE * HORIZON * EPISODES / 0.2))
    high = [min(HORIZON - step, highest) for step in range(HORIZON)]
    table, norms = transcribed(given, -beta, 0.7, high, 0.0, reward if known else None)
    np.testing.assert_allclose(once.action_value, table, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(once.penalty, beta * norms, rtol=2e-5)
    again = update(once, data)
    assert np.array_equal(once.action_value, again.action_value), "the log was counted twice"


def test_features_of_another_shape_are_refused():
    expect_other_features_refused(PEVI())


@pytest.fixture(scope="module", name="logged")
def _logged():
    return logged()


@pytest.mark.equivalence("LSVIUCB")
def test_pevi_without_penalty_is_greedy_and_so_is_lsvi(logged):
    process, data = logged
    pevi = learned(PEVI(penalty_scale=0.0), process.problem(), data)
    plan = optimal_values(shrunk(process, data, 1.0))
    np.testing.assert_allclose(pevi.action_value, plan.action_value, rtol=1e-5, atol=1e-5)
    lsvi = learned(LSVIUCB(bonus_scale=0.0), process.problem(), data)
    assert np.array_equal(PEVI().policy(pevi, explore=False), LSVIUCB().policy(lsvi, explore=False))


@pytest.mark.oracle
def test_pevi_is_pessimistic_and_within_its_bound_on_many_logs():
    process, best = LINEAR.process, float(best_return(LINEAR.process))
    visited = occupancy(process, BEST.policy)
    method = PEVI(penalty_scale=0.2)
    behaviour = 0.8 * BEST.policy + 0.2 * uniform_policy(process)

    @jax.jit
    def one(key):
        data = log_episodes(process, behaviour, episodes=60, key=key)
        state = method.init(LINEAR.problem(), key=key)
        state = method.update(state, data, key=key)[0]
        worth = expected_return(process, method.policy(state, explore=False))
        claimed = process.initial @ jnp.max(state.action_value[0], axis=-1)
        return worth, claimed, 2.0 * jnp.sum(visited * state.penalty)

    worth, claimed, bound = (
        np.asarray(x) for x in jax.vmap(one)(jax.random.split(jax.random.key(0), 200))
    )
    assert np.mean(claimed <= worth + 1e-5) >= 0.9
    assert np.mean(best - worth <= bound + 1e-5) >= 0.9
    assert bound.mean() < 2.0, "the bound says nothing"
