"""Least-squares value iteration in NumPy loops, and small linear problems."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem

HORIZON, STATES, ACTIONS, SIZE, EPISODES = 3, 5, 2, 3, 7


def given():
    """Features, states, actions and rewards of a few random episodes."""
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


def expect_other_features_refused(method):
    """Fails unless `method` says which shape features must have."""
    problem = FiniteProblem(STATES, ACTIONS, HORIZON)
    with pytest.raises(SpecificationError) as caught:
        method.with_features(problem, jax.numpy.zeros((STATES, ACTIONS, 4)))
    assert str(caught.value) == (
        f"{type(method).__name__} got features of shape (5, 2, 4), but the problem has 3 steps, 5 "
        "states and 2 actions: they must be (3, 5, 2, features)"
    )
