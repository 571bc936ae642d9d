"""Cloning by counts against counting in NumPy."""

import jax
import numpy as np
import pytest

from headwater.core.finite import FiniteProblem
from headwater.methods.tabular.offline.tabular_cloning import TabularCloning

from ..random_log import ACTIONS, HORIZON, STATES, random_log


@pytest.fixture(scope="module")
def data():
    return random_log()


@pytest.mark.parity
def test_cloning_counts_in_pieces(data):
    method = TabularCloning(smoothing=0.5)
    state = method.init(FiniteProblem(STATES, ACTIONS, HORIZON), key=jax.random.key(0))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0)))
    first, metrics = update(state, jax.tree.map(lambda x: x[:25], data))
    np.testing.assert_allclose(
        metrics["negative_log_likelihood"], HORIZON * np.log(ACTIONS), rtol=1e-6
    )
    policy = method.policy(update(first, jax.tree.map(lambda x: x[25:], data))[0], explore=False)
    data = jax.tree.map(np.asarray, data)
    for step in range(HORIZON):
        for s in range(STATES):
            here = data.action[data.state[:, step] == s, step]
            counts = np.bincount(here, minlength=ACTIONS)
            expected = (counts + 0.5) / (len(here) + 0.5 * ACTIONS)
            np.testing.assert_allclose(policy[step, s], expected, rtol=1e-6)
