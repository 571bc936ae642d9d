"""RAFFLE against its equations in NumPy, and on locks."""

import numpy as np
import pytest

from headwater.methods.low_rank.raffle import RAFFLE

from .locks import expect_locks_opened, expect_other_problems_refused
from .low_rank_twin import (
    ACTIONS,
    DELTA,
    HORIZON,
    RANK,
    STATES,
    bonus_of,
    both_constants,
    expect_practical_constants,
    log_classes,
    model_of,
    targets,
)


@pytest.mark.parity
def test_raffle_plans_for_the_truncated_value():
    features, measures = log_classes(2)
    for constants, state, metrics, data in both_constants(RAFFLE, ()):
        feature, model = model_of(state)
        common = np.log(2 * HORIZON / DELTA)
        log = np.log(2.0) + features + measures + common
        scale, ridge = 1.0, 1.0
        if constants == "theorem":
            ridge = RANK * (features + common)
            scale = 5.0 * np.sqrt(ACTIONS * log + ridge * RANK)
        bonus = bonus_of(feature, targets(data, ...), scale, ridge, 1.0)
        bonus[-1] = 0.0
        value, policy = np.zeros(STATES), np.asarray(state.explorer)
        for step in reversed(range(HORIZON)):
            action_value = np.minimum(bonus[step] + model[0, step] @ value, 1.0)
            value = action_value.max(-1)
            chosen = np.sum(action_value * policy[step], axis=-1)
            np.testing.assert_allclose(chosen, value, atol=1e-5)
        start = np.asarray(state.problem.initial)
        np.testing.assert_allclose(metrics["truncated_value"], start @ value, rtol=1e-4)
        bound = 2.0 * start @ value + 2.0 * np.sqrt(ACTIONS * log / 2.0)
        np.testing.assert_allclose(metrics["model_error_bound"], bound, rtol=1e-4)


def test_the_constants_are_the_practical_ones_by_default():
    expect_practical_constants(RAFFLE)


@pytest.mark.oracle
def test_locks_are_opened():
    expect_locks_opened(RAFFLE)


def test_problems_that_do_not_fit_are_refused(key):
    expect_other_problems_refused(RAFFLE, key)
