from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.exploration.fresh_grid import FreshGrid

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


def _closed(walls, row, column):
    inside = 0 <= row < len(walls) and 0 <= column < len(walls)
    return not inside or bool(walls[row, column])


def test_every_goal_can_be_reached_and_is_far():
    task = FreshGrid(size=7, distance=5)
    states = jax.vmap(lambda key: task.reset(key=key)[0])(jax.random.split(jax.random.key(0), 200))
    walls, goals, starts = map(np.asarray, (states.walls, states.goal, states.position))
    for wall, goal, start in zip(walls, goals, starts):
        assert np.abs(goal - start).sum() >= 5
        queue, seen = deque([tuple(start)]), {tuple(start)}
        while queue:
            row, column = queue.popleft()
            for down, right in _MOVES:
                cell = (row + down, column + right)
                if cell not in seen and not _closed(wall, *cell):
                    seen.add(cell)
                    queue.append(cell)
        assert tuple(goal) in seen
    assert 0.05 < walls.mean() < 0.12


def test_steps_and_observations_are_those_of_the_walls():
    task = FreshGrid(size=5, distance=2, horizon=60)
    state, shown = task.reset(key=jax.random.key(3))
    walls = np.asarray(state.walls)
    place, last = tuple(map(int, state.position)), 4
    rng = np.random.default_rng(0)
    for _ in range(40):
        closed = [_closed(walls, place[0] + a, place[1] + b) for a, b in _MOVES]
        situation = sum(2**i for i in range(4) if closed[i]) * 5 + last
        assert int(jnp.argmax(shown[:-2])) == situation and float(shown[:-2].sum()) == 1.0
        assert tuple(map(int, shown[-2:])) == place
        last = int(rng.integers(4))
        state, step = task.step(state, jnp.asarray(last), key=jax.random.key(0))
        if not closed[last]:
            place = (place[0] + _MOVES[last][0], place[1] + _MOVES[last][1])
        there = place == tuple(map(int, state.goal))
        assert bool(step.terminal) is there and float(step.reward) == float(there)
        shown = step.observation


def test_few_contexts_come_back_and_endless_ones_do_not():
    keys = jax.random.split(jax.random.key(5), 60)
    for contexts, most in ((3, 3), (0, 60)):
        task = FreshGrid(contexts=contexts)
        states = jax.vmap(lambda key, task=task: task.reset(key=key)[0])(keys)
        layouts = {
            (w.tobytes(), tuple(g)) for w, g in zip(*map(np.asarray, (states.walls, states.goal)))
        }
        assert len(layouts) == most


def test_the_contract_and_refusals():
    check_environment(FreshGrid())
    with pytest.raises(SpecificationError, match="distance = 11 must lie between 1 and 10"):
        FreshGrid(distance=11)
    with pytest.raises(SpecificationError, match="contexts = -1 at least 0"):
        FreshGrid(contexts=-1)
