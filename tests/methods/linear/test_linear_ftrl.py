"""The regularised leader in linear processes against plain loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Episodes
from headwater.methods.linear.linear_ftrl import LinearFTRL, estimates, log_barrier_leader
from headwater.sources.episodes import play_each

from .linear_problems import LINEAR

METHOD = {"learning_rate": 0.3, "bonus_scale": 0.2, "ridge": 0.05, "num_simulated": 6}


def followed(method, updates=3):
    """The state, and the episodes and policies that led to it."""
    process, state = LINEAR.process, method.init(LINEAR.problem(), key=jax.random.key(0))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    seen = []
    for i in range(updates):
        policies = method.policy(state, explore=True)
        data = play_each(process, policies, key=jax.random.key(i))
        seen.append((data, np.asarray(policies[0], np.float64)))
        state = update(state, data)
    return state, seen


def by_hand(seen, estimator):
    """Losses less bonuses after these episodes, by the formulas of the docstring."""
    features = np.asarray(LINEAR.features, np.float64)
    horizon, states, actions, size = features.shape
    total, rows = np.zeros((horizon, states, actions)), []
    for data, policy in seen:
        place, action, reward = (np.asarray(x) for x in (data.state, data.action, data.reward))
        rows += [(place[i], action[i]) for i in range(len(action))]
        value = np.zeros(states)
        for h in reversed(range(horizon)):
            phi = features[h][place[:, h], action[:, h]]
            inverse = np.linalg.inv(0.05 * np.eye(size) + phi[1::2].T @ phi[1::2] / 3)
            product = features[h] @ inverse @ phi[0]
            found = product * (1.0 - reward[0, h:]).sum()
            if estimator == "magnitude_reduced":
                others = np.minimum(features[h] @ inverse @ phi[2::2].T, 0.0).mean(-1)
                found += (horizon - h) * (others - np.minimum(product, 0.0))
            norm = np.einsum("saf,fg,sag->sa", features[h], inverse, features[h])
            bonus = 0.2 * (norm + (policy[h] * norm).sum(-1, keepdims=True))
            gram = np.eye(size)
            target = np.zeros(size)
            for where, what in rows:
                x = features[h][where[h], what[h]]
                gram += np.outer(x, x)
                target += x * value[where[h + 1]]
            following = np.clip(features[h] @ np.linalg.solve(gram, target), 0.0, value.max())
            bonus += (1.0 + 1.0 / horizon) * following
            value = (policy[h] * bonus).sum(-1)
            total[h] += found - bonus
    return total - total.min(-1, keepdims=True)


@pytest.mark.parity
@pytest.mark.parametrize("estimator", ["magnitude_reduced", "plain"])
def test_losses_are_estimated_as_by_hand(estimator):
    method = LinearFTRL(loss_estimator=estimator, **METHOD)
    state, seen = followed(method)
    expected = by_hand(seen, estimator)
    np.testing.assert_allclose(state.losses, expected, rtol=2e-3, atol=2e-3)
    weights = np.exp(-0.3 * expected)
    leader = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(method.policy(state, explore=False), leader, atol=1e-3)
    explored = method.policy(state, explore=True)
    assert explored.shape[0] == 7
    np.testing.assert_allclose(explored[3], 0.98 * leader + 0.01, atol=1e-3)


@pytest.mark.oracle
def test_the_reduced_estimate_is_as_right_as_the_plain_one_and_never_so_low():
    """Over all actions of a bandit and all losses, weighted by how probable they are."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(5, 3)) / 2.0
    policy, mean = draw.dirichlet(np.ones(5)), features @ [0.3, -0.2, 0.4] + 0.5
    inverse = np.linalg.inv((policy[:, None] * features).T @ features)
    shaped = [jnp.asarray(x, jnp.float32) for x in (features[None, None], inverse[None])]

    def found(estimator, a, loss, other):
        own, others = (jnp.asarray(features[[x]], jnp.float32) for x in (a, other))
        later = jnp.asarray([loss], jnp.float32)
        return np.asarray(estimates(estimator, *shaped, own, later, others[None]))[0, 0]

    expected = dict.fromkeys(("plain", "magnitude_reduced"), 0.0)
    least = dict.fromkeys(expected, 0.0)
    for estimator in expected:
        for a in range(5):
            for other in range(5):
                for loss, share in ((0.0, 1.0 - mean[a]), (1.0, mean[a])):
                    estimate = found(estimator, a, loss, other)
                    expected[estimator] += policy[a] * policy[other] * share * estimate
                    floor = np.minimum(features @ inverse @ features[other], 0.0)
                    if estimator == "magnitude_reduced":
                        assert np.all(estimate >= floor - 1e-4)
                    least[estimator] = min(least[estimator], estimate.min())
    for estimator in expected:
        np.testing.assert_allclose(expected[estimator], features @ inverse @ (
            (policy * mean)[:, None] * features).sum(0), atol=1e-4)  # fmt: skip
    np.testing.assert_allclose(expected["plain"], features @ [0.3, -0.2, 0.4] + (
        features @ inverse @ ((0.5 * policy)[:, None] * features).sum(0)), atol=1e-4)  # fmt: skip


@pytest.mark.oracle
def test_the_log_barrier_is_at_its_minimum():
    losses = jnp.asarray([[0.0, 1.0, 2_000.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    found = np.asarray(log_barrier_leader(losses, 2.0), np.float64)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-6)
    # Where the gradient, the loss less 1 / (η p), is the same for all actions.
    gradient = np.asarray(losses, np.float64) - 1.0 / (2.0 * found)
    np.testing.assert_allclose(gradient, gradient[:, :1] + 0.0 * gradient, rtol=1e-4)
    np.testing.assert_allclose(found[1], 0.25, atol=1e-6)


def test_fewer_than_three_episodes_serve_for_everything():
    method = LinearFTRL(**METHOD)
    state = method.init(LINEAR.problem(), key=jax.random.key(0))
    policies = method.policy(state, explore=True)
    data = play_each(LINEAR.process, policies[:1], key=jax.random.key(0))
    twice = Episodes(*(jnp.concatenate([x, x]) for x in (data.state, data.action, data.reward)))
    one, two = (method.update(state, d, key=jax.random.key(0))[1] for d in (data, twice))
    assert np.isfinite(float(one["lowest_estimate"]))
    assert float(one["lowest_estimate"]) == pytest.approx(float(two["lowest_estimate"]), rel=1e-5)
