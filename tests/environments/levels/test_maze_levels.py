"""Mazes by number, against a search and a union of rooms written in plain Python."""

from collections import deque

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.levels.maze_levels import MazeLevels, shortest_way, steps_to_the_goal

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


@eqx.filter_jit
def _reset(only, numbers):
    return jax.vmap(lambda i: only.level(i).reset(key=jax.random.key(7)))(numbers)


def _begun(task):
    """The first 200 levels from the first of `task` on; compiled once, whatever their numbers."""
    return _reset(task.level(jnp.asarray(0)), jnp.arange(200))


def _distances(walls, goal):
    """By breadth-first search."""
    found, queue = {goal: 0}, deque([goal])
    while queue:
        row, column = queue.popleft()
        for down, right in _MOVES:
            cell = (row + down, column + right)
            inside = 0 <= cell[0] < len(walls) and 0 <= cell[1] < len(walls)
            if inside and not walls[cell] and cell not in found:
                found[cell] = found[(row, column)] + 1
                queue.append(cell)
    return found


def test_every_room_is_reached_and_without_loops_in_one_way():
    states, _ = _begun(MazeLevels(loops=0.0))
    walls, goals, starts = map(np.asarray, (states.walls, states.goal, states.position))
    assert np.all(walls[:, ::2, ::2] == 0) and np.all(walls[:, 1::2, 1::2] == 1)
    # A tree of 16 rooms has 15 passages.
    assert np.all((~walls).sum((1, 2)) == 16 + 15)
    for wall, goal, start in zip(walls, goals, starts):
        assert len(_distances(wall, tuple(goal))) == 16 + 15
        assert np.abs(goal - start).sum() >= 4 and not np.any(np.r_[goal, start] % 2)
    assert len({wall.tobytes() for wall in walls}) > 190
    opened = np.asarray(_begun(MazeLevels(loops=0.3))[0].walls)
    # Of 24 passages, 9 are left over, of which three in ten are open too.
    assert 0.25 < ((~opened).sum((1, 2)) - 31).mean() / 9 < 0.35


def test_the_number_of_a_level_is_all_of_it_and_episodes_take_the_levels_of_the_task():
    task = MazeLevels(start_level=10, num_levels=3)
    layouts = [np.asarray(shown).tobytes() for shown in _begun(MazeLevels())[1]]
    own = [np.asarray(shown).tobytes() for shown in _begun(task)[1]]
    assert own[:190] == layouts[10:] and len(set(layouts)) == 200 and task.levels == 3
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: task.reset(key=key)[1]))(keys))
    numbers = [layouts.index(shown.tobytes()) for shown in drawn]
    assert set(numbers) == {10, 11, 12}
    assert min(numbers.count(level) for level in (10, 11, 12)) > 60


def test_observations_and_the_shortest_way_are_those_of_a_search():
    task = MazeLevels()
    states, shown = jax.tree.map(lambda x: x[:40], _begun(task))
    steps = jax.jit(jax.vmap(lambda w, g: steps_to_the_goal(w, g > 0.5)))(
        states.walls, jnp.asarray(shown).reshape(-1, 3, 7, 7)[:, 2]
    )
    act = jax.jit(jax.vmap(lambda o, key: shortest_way(task, o, key=key)))
    walk = jax.jit(jax.vmap(lambda s, a: task.step(s, a, key=jax.random.key(0))))
    distances = [
        _distances(wall, tuple(map(int, goal)))
        for wall, goal in zip(np.asarray(states.walls), np.asarray(states.goal))
    ]
    for found, known in zip(np.asarray(steps), distances):
        for cell in np.ndindex(7, 7):
            assert found[cell] == known.get(cell, 1e6)
    left = np.asarray([d[tuple(map(int, at))] for d, at in zip(distances, states.position)])
    for time in range(left.max()):
        maps = np.asarray(shown).reshape(-1, 3, 7, 7)
        np.testing.assert_array_equal(maps[:, 0], np.asarray(states.walls))
        assert np.all(maps[:, 1:].sum((2, 3)) == 1.0)
        for agent, goal, at, aim in zip(maps[:, 1], maps[:, 2], states.position, states.goal):
            assert agent[tuple(at)] == 1.0 and goal[tuple(aim)] == 1.0
        states, step = walk(states, act(shown, jax.random.split(jax.random.key(time), 40)))
        shown = step.observation
        # Just when the search says so, and never before.
        going_on = left > time
        for column in (step.terminal, step.reward):
            np.testing.assert_array_equal(np.asarray(column)[going_on], left[going_on] == time + 1)


def test_what_is_no_maze_is_said():
    with pytest.raises(SpecificationError, match="size = 6 must be odd and at least 3"):
        MazeLevels(size=6)
    with pytest.raises(SpecificationError, match="num_levels = 0"):
        MazeLevels(num_levels=0)
    with pytest.raises(SpecificationError, match="start_level = -1 must be at least 0"):
        MazeLevels(start_level=-1)
    with pytest.raises(SpecificationError, match="distance = 9 must lie between 1 and 8"):
        MazeLevels(distance=9)
