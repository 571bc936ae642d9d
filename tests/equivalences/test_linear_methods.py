"""Identities between linear methods and tabular ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import random_process
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.ops.tabular.counts import count, no_counts
from headwater.ops.tabular.planning import optimal_values, uniform_policy
from headwater.sources.episodes import log_episodes


@pytest.fixture(scope="module")
def logged():
    process = random_process(states=4, actions=3, horizon=5, key=jax.random.key(0))
    data = log_episodes(process, uniform_policy(process), episodes=40, key=jax.random.key(1))
    return process, data


def _learned(method, problem, data):
    state = method.init(problem, key=jax.random.key(0))
    return jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])(state, data)


def _shrunk(process, data, ridge):
    """The empirical model of counts with `ridge` added to every number of visits."""
    counts = count(no_counts(process.problem()), data)
    times = counts.visits + ridge
    return FiniteProcess(
        counts.following / times[..., None], counts.reward / times, process.initial
    )


def test_lsvi_without_bonus_is_value_iteration_in_the_shrunk_empirical_model(logged):
    process, data = logged
    method = LSVIUCB(bonus_scale=0.0, regularisation=0.5)
    state = _learned(method, process.problem(), data)
    plan = optimal_values(_shrunk(process, data, 0.5))
    np.testing.assert_allclose(state.action_value, plan.action_value, rtol=1e-5, atol=1e-5)


def test_pevi_without_penalty_is_greedy_and_so_is_lsvi(logged):
    process, data = logged
    pevi = _learned(PEVI(penalty_scale=0.0), process.problem(), data)
    plan = optimal_values(_shrunk(process, data, 1.0))
    np.testing.assert_allclose(pevi.action_value, plan.action_value, rtol=1e-5, atol=1e-5)
    lsvi = _learned(LSVIUCB(bonus_scale=0.0), process.problem(), data)
    assert np.array_equal(PEVI().policy(pevi, explore=False), LSVIUCB().policy(lsvi, explore=False))


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
