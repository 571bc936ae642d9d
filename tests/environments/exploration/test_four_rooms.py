"""Four rooms against a walk on its plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.exploration.four_rooms import CELLS, FourRooms, next_cells, places


def test_rooms_are_joined_by_four_doors():
    there = places()
    assert CELLS == 104 and len(set(map(tuple, there.tolist()))) == 104
    following = next_cells()
    # A move leads to a neighbour or nowhere, and the way back undoes it.
    apart = np.abs(there[following] - there[:, None]).sum(-1)
    assert set(np.unique(apart)) == {0, 1}
    for action in range(4):
        moved = following[:, action] != np.arange(CELLS)
        back = following[following[:, action], (action + 2) % 4]
        np.testing.assert_array_equal(back[moved], np.arange(CELLS)[moved])
    # Cells with closed neighbours on two opposite sides: the doors.
    closed = following == np.arange(CELLS)[:, None]
    doors = (closed[:, 0] & closed[:, 2]) | (closed[:, 1] & closed[:, 3])
    assert there[doors].tolist() == [[2, 5], [5, 1], [6, 8], [9, 5]]
    # Without them the rooms fall apart into four.
    room = np.arange(CELLS)
    for _ in range(CELLS):
        near = np.where(doors[following] | doors[:, None], np.arange(CELLS)[:, None], following)
        room = np.minimum(room, room[near].min(1))
    assert len(set(room[~doors].tolist())) == 4


def test_steps_follow_the_plan_and_end_at_the_goal():
    task, following = FourRooms(goal=3, horizon=30), next_cells()
    state, shown = task.reset(key=jax.random.key(0))
    cell, rng, step_of = int(state.cell), np.random.default_rng(0), jax.jit(task.step)
    for time in range(1, 31):
        assert shown.shape == (CELLS,) and int(jnp.argmax(shown)) == cell and shown.sum() == 1
        action = int(rng.integers(4))
        state, step = step_of(state, jnp.asarray(action), key=jax.random.key(0))
        cell, shown = int(following[cell, action]), step.observation
        assert bool(step.terminal) == (cell == 3) == bool(step.reward)
        assert bool(step.truncated) == (time == 30 and cell != 3)


def test_episodes_begin_anywhere_but_at_the_goal():
    keys = jax.random.split(jax.random.key(1), 3000)
    for goal, left_out in ((5, {5}), (-1, set())):
        cells = jax.vmap(lambda key, goal=goal: FourRooms(goal=goal).reset(key=key)[0].cell)(keys)
        assert set(range(CELLS)) - set(np.asarray(cells).tolist()) == left_out


def test_it_is_an_environment_and_refuses_other_goals():
    check_environment(FourRooms())
    with pytest.raises(SpecificationError, match="goal = 104 must lie between 0 and 103"):
        FourRooms(goal=104)
    with pytest.raises(SpecificationError, match="horizon = 0"):
        FourRooms(horizon=0)
