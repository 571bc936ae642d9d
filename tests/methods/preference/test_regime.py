"""REGIME against its equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.preference.regime import REGIME

from .logged_preferences import (
    KEY,
    LOG,
    TASK,
    differences,
    expect_known_start_asked_for,
)


@pytest.mark.parity
def test_regime_asks_once_after_exploring():
    method = REGIME(num_comparisons=12, num_exploration_updates=1, num_restarts=2)
    state = method.init(TASK.problem(), key=KEY)
    update = jax.jit(method.update)
    for expected, changes in ((0.0, False), (12.0, True), (12.0, False)):
        before = state
        state, metrics = update(state, LOG, key=KEY)
        assert float(metrics["queries"]) == expected
        assert bool(jnp.any(state.weights != before.weights)) is changes
    rows = differences(LOG)
    chance = 1 / (1 + np.exp(-rows @ np.asarray(state.weights, np.float64)))
    slope = (np.asarray(LOG.first_preferred) - chance) @ rows
    np.testing.assert_allclose(slope, 0.1 * np.asarray(state.weights), atol=1e-3)


def test_a_problem_without_a_start_is_refused():
    expect_known_start_asked_for(REGIME())
