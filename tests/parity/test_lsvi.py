"""LSVI-UCB and PEVI against a transcription of their equations in NumPy, episode by episode."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.linear.pessimistic_lsvi import PEVI

HORIZON, STATES, ACTIONS, SIZE, EPISODES = 3, 5, 2, 3, 7


@pytest.fixture(scope="module")
def given():
    draw = np.random.default_rng(0)
    features = draw.dirichlet(np.full(SIZE, 0.5), (HORIZON, STATES, ACTIONS)).astype(np.float32)
    state = draw.integers(0, STATES, (EPISODES, HORIZON + 1)).astype(np.int32)
    action = draw.integers(0, ACTIONS, (EPISODES, HORIZON)).astype(np.int32)
    reward = draw.uniform(size=(EPISODES, HORIZON)).astype(np.float32)
    return features, state, action, reward


def transcribed(given, beta, ridge, high, low=-np.inf, known=None):
    """The papers' loops over stored transitions, as they are written."""
    features, state, action, reward = (np.asarray(x) for x in given)
    features = features.astype(np.float64)
    value = np.zeros(STATES)
    tables, norms = np.zeros((2, HORIZON, STATES, ACTIONS))
    for step in reversed(range(HORIZON)):
        covariance, target = ridge * np.eye(SIZE), np.zeros(SIZE)
        for episode in range(len(state)):
            phi = features[step, state[episode, step], action[episode, step]]
            covariance += np.outer(phi, phi)
            earned = 0.0 if known is not None else reward[episode, step]
            target += phi * (earned + value[state[episode, step + 1]])
        weights = np.linalg.solve(covariance, target)
        inverse = np.linalg.inv(covariance)
        for s in range(STATES):
            for a in range(ACTIONS):
                phi = features[step, s, a]
                norms[step, s, a] = np.sqrt(phi @ inverse @ phi)
                raw = phi @ weights + beta * norms[step, s, a]
                raw += 0.0 if known is None else known[step, s, a]
                tables[step, s, a] = min(max(raw, low), high[step])
        value = tables[step].max(axis=1)
    return tables, norms


@pytest.mark.parametrize("known", [False, True])
def test_lsvi_ucb(given, known):
    features, *columns = given
    reward = np.random.default_rng(1).uniform(size=(HORIZON, STATES, ACTIONS)).astype(np.float32)
    problem = FiniteProblem(
        STATES, ACTIONS, HORIZON, reward=jax.numpy.asarray(reward) if known else None
    )
    method = LSVIUCB(
        bonus_scale=0.02,
        regularisation=0.7,
        failure_probability=0.2,
        episodes=50.0,
        highest_return=0.9,
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


@pytest.mark.parametrize("known", [False, True])
def test_pevi(given, known):
    features, *columns = given
    reward = np.random.default_rng(1).uniform(size=(HORIZON, STATES, ACTIONS)).astype(np.float32)
    problem = FiniteProblem(
        STATES, ACTIONS, HORIZON, reward=jax.numpy.asarray(reward) if known else None
    )
    method = PEVI(
        penalty_scale=0.02, regularisation=0.7, failure_probability=0.2, highest_return=0.5
    )
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


@pytest.mark.parametrize("method", [LSVIUCB(), PEVI()])
def test_features_of_another_shape_are_refused(method):
    problem = FiniteProblem(STATES, ACTIONS, HORIZON)
    with pytest.raises(SpecificationError) as caught:
        method.with_features(problem, jax.numpy.zeros((STATES, ACTIONS, 4)))
    assert str(caught.value) == (
        f"{type(method).__name__} got features of shape (5, 2, 4), but the problem has 3 steps, 5 "
        "states and 2 actions: they must be (3, 5, 2, features)"
    )
