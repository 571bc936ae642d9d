"""FREEHAND against its equations in NumPy."""

import jax
import numpy as np
import pytest

from headwater.methods.preference.freehand import FREEHAND
from headwater.ops.linear.preference import trajectory_features

from .logged_preferences import (
    KEY,
    LOG,
    PROCESS,
    TASK,
    differences,
    expect_known_start_asked_for,
    worst_case,
)


@pytest.mark.parity
def test_freehand_estimates_and_compares_with_what_was_logged():
    method = FREEHAND(confidence_radius=0.5, ridge=0.3, num_iterations=40)
    state = method.init_with_model(TASK.problem(), PROCESS.transition)
    state, metrics = jax.jit(method.update)(state, LOG, key=KEY)
    rows, weights = differences(LOG), np.asarray(state.weights, np.float64)
    chance = 1 / (1 + np.exp(-rows @ weights))
    slope = (np.asarray(LOG.first_preferred) - chance) @ rows - 0.3 * weights
    np.testing.assert_allclose(slope, 0.0, atol=1e-3)
    precision = (rows * (chance * (1 - chance))[:, None]).T @ rows + 0.3 * np.eye(2)
    reference = np.asarray(trajectory_features(LOG.first, TASK.features)).mean(axis=0)
    by_hand = worst_case(state.table, weights, precision, 0.5, reference)
    np.testing.assert_allclose(metrics["worst_case"], by_hand, atol=1e-3)


def test_a_problem_without_a_start_is_refused():
    expect_known_start_asked_for(FREEHAND())
