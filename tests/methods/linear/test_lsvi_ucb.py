"""LSVI-UCB against its equations, against tabular planning, and on linear processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.records import Episodes
from headwater.environments.linear.linear import linear_lock
from headwater.evaluation.exact import cumulative, regret_of
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.ops.tabular.planning import (
    optimal_values,
    uniform_policy,
)
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes, log_episodes

from .linear_problems import BEST, LINEAR, learned, logged, shrunk
from .linear_twin import (
    ACTIONS,
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
def test_lsvi_ucb(given, known):
    features, *columns = given
    reward = np.random.default_rng(1).uniform(size=(HORIZON, STATES, ACTIONS)).astype(np.float32)
    problem = FiniteProblem(
        STATES, ACTIONS, HORIZON, reward=jax.numpy.asarray(reward) if known else None
    )
    method = LSVIUCB(
        bonus_scale=0.02,
        ridge=0.7,
        failure_probability=0.2,
        num_episodes=50.0,
        max_return=0.9,
    )
    state = method.with_features(problem, jax.numpy.asarray(features))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    # In two unequal pieces and one by one: sums are all that is kept.
    for piece in (slice(0, 4), slice(4, 5), slice(5, 6), slice(6, 7)):
        state = update(state, Episodes(*(column[piece] for column in columns)))
    high = 0.9 * HORIZON
    beta = 0.02 * SIZE * high * np.sqrt(np.log(2 * SIZE * 50 * HORIZON / 0.2))
    table, _ = transcribed(given, beta, 0.7, [high] * HORIZON, known=reward if known else None)
    np.testing.assert_allclose(state.action_value, table, rtol=2e-5, atol=2e-5)
    policy = np.asarray(method.policy(state, explore=True))
    assert np.array_equal(policy.argmax(-1), table.argmax(-1))


def test_features_of_another_shape_are_refused():
    expect_other_features_refused(LSVIUCB())


@pytest.fixture(scope="module", name="logged")
def _logged():
    return logged()


@pytest.mark.equivalence
def test_lsvi_without_bonus_is_value_iteration_in_the_shrunk_empirical_model(logged):
    process, data = logged
    method = LSVIUCB(bonus_scale=0.0, ridge=0.5)
    state = learned(method, process.problem(), data)
    plan = optimal_values(shrunk(process, data, 0.5))
    np.testing.assert_allclose(state.action_value, plan.action_value, rtol=1e-5, atol=1e-5)


@pytest.mark.equivalence
def test_rotated_features_change_nothing(logged):
    process, data = logged
    problem, method = process.problem(), LSVIUCB(bonus_scale=0.01)
    plain = method.init(problem, key=jax.random.key(0))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    turned = method.with_features(problem, plain.features @ jnp.asarray(turn, jnp.float32))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    np.testing.assert_allclose(
        update(plain, data).action_value, update(turned, data).action_value, rtol=1e-4, atol=1e-4
    )


@pytest.mark.equivalence
def test_two_names_of_one_state_share_what_they_teach(logged):
    """A process whose states come in twos, with features that do not tell twins apart."""
    process, data = logged
    problem = process.problem()
    method = LSVIUCB(bonus_scale=0.01)
    twins = jnp.repeat(method.init(problem, key=jax.random.key(0)).features, 2, axis=1)
    wide = FiniteProcess(
        jnp.repeat(jnp.repeat(process.transition, 2, axis=1), 2, axis=-1) / 2.0,
        jnp.repeat(process.reward, 2, axis=1),
        jnp.repeat(process.initial, 2) / 2.0,
    )
    which = np.random.default_rng(0).integers(0, 2, data.state.shape)
    doubled = type(data)(2 * data.state + which, data.action, data.reward)
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    narrow = update(method.init(problem, key=jax.random.key(0)), data).action_value
    both = update(method.with_features(wide.problem(), twins), doubled).action_value
    np.testing.assert_allclose(both, jnp.repeat(narrow, 2, axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.oracle
def test_lsvi_ucb_is_optimistic_with_the_constants_of_the_theorem():
    process, method = LINEAR.process, LSVIUCB(num_episodes=10_000.0)

    @jax.jit
    def one(key):
        data = log_episodes(process, uniform_policy(process), episodes=10_000, key=key)
        state = method.init(LINEAR.problem(), key=key)
        state = method.update(state, data, key=key)[0]
        return state.action_value

    found = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 20)))
    above = np.all(found >= np.asarray(BEST.action_value) - 1e-4, axis=(1, 2, 3))
    assert np.mean(above) >= 0.9
    # It says something: the bound has come down from the horizon.
    assert found.max() < 1.95


@pytest.mark.oracle
def test_lsvi_ucb_opens_a_lock_that_value_iteration_without_a_bonus_never_opens():
    lock = linear_lock(states=12, actions=3, horizon=3, features=3, key=jax.random.key(0))
    regrets = []
    for scale in (0.03, 0.0):
        method = LSVIUCB(bonus_scale=scale, num_episodes=300.0, max_return=1.0 / 3.0)
        stage = Stage(
            "learn", method, FreshEpisodes(lock.process), 300, measure=regret_of(lock.process)
        )
        rows = run([stage], lock.problem(), seeds=4, layout="vmap", logs=3).metrics
        regrets.append(cumulative(rows)[1])
    optimistic, greedy = regrets
    assert np.all(optimistic[:, -1] == optimistic[:, 1]), "it still loses at the end"
    assert optimistic[:, -1].max() < 60.0 < 200.0 < greedy[:, -1].mean()
