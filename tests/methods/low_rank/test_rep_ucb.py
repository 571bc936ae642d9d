"""REP-UCB against its equations in NumPy, and on locks."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.methods.low_rank.rep_ucb import RepUCB

from .locks import expect_locks_opened, expect_other_problems_refused
from .low_rank_twin import (
    ACTIONS,
    DELTA,
    RANK,
    bonus_of,
    both_constants,
    expect_practical_constants,
    expected_of,
    log_classes,
    model_of,
    policies,
    targets,
)


@pytest.mark.parity
def test_rep_ucb_is_optimistic_for_the_reward():
    for constants, state, metrics, data in both_constants(RepUCB, ()):
        feature, model = model_of(state.explored)
        log = sum(log_classes(2)) + np.log(2.0 / DELTA)
        scale, ridge = 1.0, 1.0
        if constants == "theorem":
            scale, ridge = np.sqrt((ACTIONS + RANK**2) * log), RANK * log
        bonus = bonus_of(feature, targets(data, ..., back=1), scale, ridge, 2.0)
        bonus[-1] = 0.0
        reward = np.asarray(state.explored.problem.reward, np.float64) + bonus
        start = np.asarray(state.explored.problem.initial)
        best = max(expected_of(model[0], start, reward, policy).sum() for policy in policies())
        np.testing.assert_allclose(metrics["optimistic_value"], best, rtol=1e-4)
        found = expected_of(model[0], start, reward, np.asarray(state.explored.explorer)).sum()
        np.testing.assert_allclose(found, best, rtol=1e-4)


def test_the_constants_are_the_practical_ones_by_default():
    expect_practical_constants(RepUCB)


@pytest.mark.oracle
def test_locks_are_opened():
    expect_locks_opened(RepUCB)


def test_problems_that_do_not_fit_are_refused(key):
    expect_other_problems_refused(RepUCB, key)


def test_rep_ucb_needs_the_reward(key):
    problem = FiniteProblem(3, 2, 4, initial=jnp.full(3, 1.0 / 3.0))
    with pytest.raises(SpecificationError, match="RepUCB plans for known rewards"):
        RepUCB(rank=2).init(problem, key=key)
