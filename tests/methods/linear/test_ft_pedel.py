"""FTPedel against its formulas in NumPy, and policies whose value is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.evaluation.exact import best_return, returns_of
from headwater.methods.linear.ft_pedel import FTPedel, expected_features
from headwater.ops.tabular.planning import occupancy, uniform_policy
from headwater.sources.episodes import log_episodes, play_each

from .linear_problems import LINEAR

TWO = FiniteProcess.from_arrays(
    [[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]],
    [[0.1, 0.3], [0.4, 0.9]],
    [0.6, 0.4],
    horizon=2,
)
ALL = np.array(list(itertools.product(range(2), repeat=4))).reshape(-1, 2, 2)
POLICIES = jnp.asarray(np.eye(2, dtype=np.float32)[ALL])
"""All deterministic policies of two steps, states and actions."""


def taught(method, episodes, policies=POLICIES, process=TWO, updates=1):
    state = method.with_policies(process.problem(), policies)
    data = log_episodes(process, uniform_policy(process), episodes=episodes, key=jax.random.key(1))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    state = update(state, data)
    none = jax.tree.map(lambda x: x[:0], data)
    for _ in range(updates - 1):
        state = update(state, none)
    return state, data


@pytest.mark.parity
def test_expected_features_values_and_plan_are_as_by_hand():
    method = FTPedel(ridge=0.5)
    state = method.init(LINEAR.problem(), key=jax.random.key(0))
    data = log_episodes(
        LINEAR.process, uniform_policy(LINEAR.process), episodes=30, key=jax.random.key(1)
    )
    state = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])(state, data)
    features, policies = (np.asarray(x, np.float64) for x in (LINEAR.features, state.policies))
    place, action, reward = (np.asarray(x) for x in (data.state, data.action, data.reward))
    reached = np.tile(np.asarray(LINEAR.process.initial, np.float64), (len(policies), 1))
    value, width, expected = 0.0, [], []
    inverses = []
    for h in range(2):
        phi = features[h][place[:, h], action[:, h]]
        inverse = np.linalg.inv(0.5 * np.eye(2) + phi.T @ phi)
        hat = np.einsum("ps,psa,saf->pf", reached, policies[:, h], features[h])
        value = value + hat @ inverse @ phi.T @ reward[:, h]
        width.append(np.einsum("pf,fg,pg->p", hat, inverse, hat))
        reached = hat @ inverse @ phi.T @ np.eye(3)[place[:, h + 1]]
        expected.append(hat)
        inverses.append(inverse)
    found = expected_features(state, jnp.asarray(np.stack(inverses), jnp.float32))
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.value, value, rtol=1e-4, atol=1e-5)
    # All are left, since nothing is known well yet; one step is known least.
    assert bool(jnp.all(state.active)) and int(state.epoch) == 1
    policy, step = np.unravel_index(np.argmax(np.stack(width, axis=1)), (len(policies), 2))
    towards = (features[step] @ inverses[step] @ expected[step][policy]) ** 2
    np.testing.assert_array_equal(
        np.argmax(method.policy(state, explore=True)[0, step], -1), np.argmax(towards, -1)
    )


@pytest.mark.oracle
def test_with_many_episodes_features_and_values_are_the_true_ones():
    method = FTPedel()
    state, _ = taught(method, 20_000)
    covariance = np.asarray(state.sums.covariance.total, np.float64) + 1e-2 * np.eye(4)
    inverse = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    found = np.asarray(expected_features(state, inverse))
    for policy in (3, 9):
        truth = np.asarray(occupancy(TWO, POLICIES[policy])).reshape(2, 4)
        np.testing.assert_allclose(found[policy], truth, atol=0.02)
    np.testing.assert_allclose(state.value, returns_of(TWO, POLICIES), atol=0.02)


@pytest.mark.oracle
def test_only_good_policies_are_left_and_a_log_suffices_or_does_not():
    method = FTPedel(accuracy=0.8, failure_probability=0.1)
    state, _ = taught(method, 60_000, updates=6)
    returns = np.asarray(returns_of(TWO, POLICIES), np.float64)
    best = float(best_return(TWO))
    assert bool(state.finished)
    assert 1 <= int(state.active.sum()) < len(returns)
    assert np.all(returns[np.asarray(state.active)] >= best - 0.8)
    assert float(returns_of(TWO, method.policy(state, explore=False))) >= best - 0.02
    few, _ = taught(method, 50, updates=6)
    assert not bool(few.finished) and bool(jnp.all(few.active))


def test_it_explores_what_the_log_lacks():
    """A log that never takes the second action in the first state, where it often is later on."""
    method = FTPedel(num_explored=3)
    state = method.with_policies(TWO.problem(), POLICIES)
    careful = uniform_policy(TWO).at[:, 0].set(jnp.asarray([1.0, 0.0]))
    data = play_each(TWO, jnp.broadcast_to(careful, (500, 2, 2, 2)), key=jax.random.key(0))
    state = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])(state, data)
    plans = method.policy(state, explore=True)
    assert plans.shape == (3, 2, 2, 2)
    np.testing.assert_array_equal(plans[0, 1, 0], [0.0, 1.0])
    # The first action is the one that stays there.
    np.testing.assert_array_equal(plans[0, 0, 0], [1.0, 0.0])


def test_policies_of_another_process_are_refused():
    with pytest.raises(SpecificationError, match=r"must be \(policies, 2, 2, 2\)"):
        FTPedel().with_policies(TWO.problem(), POLICIES[:, :1])
