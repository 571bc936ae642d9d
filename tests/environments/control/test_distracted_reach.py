"""Reaching through a mixture with a distraction: who sees the goal, and what the observation is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.control.distracted_reach import (
    DistractedReach,
    draw_mixture,
    straight_to_the_goal,
)


@pytest.fixture(scope="module")
def walked():
    """Positions, goals, distractions and rewards of 64 episodes of who sees the goal."""
    task = DistractedReach(persistence=0.9)

    def episode(key):
        start_key, walk_key = jax.random.split(key)

        def one(state, key):
            reached, step = task.step(state, straight_to_the_goal(state), key=key)
            return reached, (state, step)

        state, _ = task.reset(key=start_key)
        return jax.lax.scan(one, state, jax.random.split(walk_key, task.horizon))[1]

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 64))


def test_who_sees_the_goal_is_there_at_the_end_and_paid_then(walked):
    states, steps = walked
    np.testing.assert_array_equal(steps.reward[:, :-1], 0.0)
    np.testing.assert_array_equal(steps.reward[:, -1], 1.0)
    assert np.all(steps.truncated[:, -1]) and not np.any(steps.terminal)
    assert np.ptp(states.goal[:, 0], axis=0).min() > 1.5


def test_the_distraction_wanders_as_it_should(walked):
    wander = np.asarray(walked[0].distraction)
    np.testing.assert_allclose(np.var(wander), 1.0, atol=0.1)
    lagged = np.mean(wander[:, 1:] * wander[:, :-1]) / np.mean(wander[:, :-1] ** 2)
    np.testing.assert_allclose(lagged, 0.9, atol=0.03)


def test_observations_are_those_of_two_layers():
    mixture = draw_mixture(key=jax.random.key(3))
    task = DistractedReach(jnp.asarray([0.5, -0.5]), mixture)
    state, seen = task.reset(key=jax.random.key(1))
    np.testing.assert_array_equal(state.goal, [0.5, -0.5])
    shown = np.concatenate([2 * np.asarray(state.position), np.asarray(state.distraction)])
    expected = np.tanh(shown @ np.asarray(mixture.first)) @ np.asarray(mixture.second)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)
    other = dataclasses.replace(task, goal=jnp.asarray([-0.5, 0.5]))
    # The goal is not shown.
    np.testing.assert_array_equal(other.reset(key=jax.random.key(1))[1], seen)


def test_numbers_that_cannot_be():
    with pytest.raises(SpecificationError, match=r"persistence = 1\.5 must lie between 0 and 1"):
        DistractedReach(persistence=1.5)
    with pytest.raises(SpecificationError, match="horizon = 0 must be at least 1"):
        DistractedReach(horizon=0)
