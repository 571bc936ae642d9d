"""Robust planning from a log against backward induction in the model that the log gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProcess
from headwater.methods.tabular.offline.robust_no_regret import RobustNoRegret
from headwater.ops.tabular.planning import expected_return, robust_values
from headwater.ops.tabular.robust import RowBalls, worst_transition

from ..finite_twin import HORIZON, SIZES, STATES, episodes, problem, tally

METHOD = RobustNoRegret(radius=0.15, confidence_scale=0.4)
DATA = episodes(80)


def learned(told, data=DATA, method=METHOD):
    state = method.init(told, key=jax.random.key(0))
    return jax.jit(method.update)(state, data, key=jax.random.key(1))


def model(known):
    """The process that the log shows, and how far each row may be from it, counted in NumPy."""
    counts, told = tally(DATA), problem(known)
    transition, reward = np.full((*SIZES, STATES), 1 / STATES), np.zeros(SIZES)
    radius = np.ones(SIZES)
    for at in np.ndindex(*SIZES):
        if counts.following[at].sum():
            visits, transition[at], reward[at], _ = counts.model(*at)
            radius[at] = min(0.15 + 0.4 / np.sqrt(visits), 1.0)
    assert (radius == 1.0).any(), "some steps were never logged"
    reward = np.asarray(told.reward) if known else reward
    process = FiniteProcess(
        jnp.asarray(transition, jnp.float32), jnp.asarray(reward, jnp.float32), told.initial
    )
    return process, jnp.asarray(radius, jnp.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("known", [False, True], ids=["estimated rewards", "known rewards"])
def test_finds_what_backward_induction_finds_in_the_model_of_the_log(known):
    state, metrics = learned(problem(known))
    process, radius = model(known)
    best = float(process.initial @ robust_values(process, radius).value[0])
    worst = worst_transition(process.reward, state.policy, RowBalls(process.transition, radius))
    met = FiniteProcess(worst, process.reward, process.initial)
    worth = float(expected_return(met, state.policy))
    assert best - 2e-3 < worth <= best + 1e-5
    assert float(metrics["robust_value"]) == pytest.approx(worth, abs=1e-5)
    # What it says it may fall short by is no less than what it does.
    assert best - worth <= float(metrics["robust_gap"]) + 1e-5 < 5e-3


@pytest.mark.equivalence
def test_other_units_of_rewards_change_nothing_but_what_is_reported():
    plain, metrics = learned(problem())
    other = dataclasses.replace(problem(), reward_range=jnp.asarray([-5.0, 15.0]))
    scaled, found = learned(other, dataclasses.replace(DATA, reward=20.0 * DATA.reward - 5.0))
    np.testing.assert_allclose(scaled.policy, plain.policy, atol=1e-4)
    value, gap = float(metrics["robust_value"]), float(metrics["robust_gap"])
    assert float(found["robust_value"]) == pytest.approx(20.0 * value - 5.0 * HORIZON, abs=1e-3)
    assert float(found["robust_gap"]) == pytest.approx(20.0 * gap, abs=1e-3)
