"""A grid whose moves show late, by hand and by who knows what its symbols mean."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.exploration.late_grid import LateGrid, towards_the_corner

UP, RIGHT, DOWN, LEFT = (jnp.asarray(i, jnp.int32) for i in range(4))


def at(task, row, column, target):
    """A state of an episode in which the symbol shown means the corner `target`."""
    meant = next(s for s in range(task.symbols) if tuple(task.corner(jnp.asarray(s))) == target)
    state, _ = task.reset(key=jax.random.key(0))
    place = jnp.asarray([row, column], jnp.int32)
    return dataclasses.replace(state, position=place, symbol=jnp.asarray(meant, jnp.int32))


def test_a_move_takes_place_a_step_late():
    task = LateGrid(size=5)
    state = at(task, 2, 2, (0, 4))
    places = []
    for action in (RIGHT, UP, UP, UP):
        state, step = task.step(state, action, key=jax.random.key(1))
        places.append(tuple(int(x) for x in state.position))
        np.testing.assert_allclose(step.observation[:2], np.asarray(places[-1]) / 2 - 1)
        assert int(jnp.argmax(step.observation[2:])) == int(state.symbol)
    assert places == [(2, 2), (2, 3), (1, 3), (0, 3)]


def test_corners_end_legs_and_wrong_ones_the_episode():
    task = LateGrid(size=5, legs=2)
    for target, done in (((0, 4), False), ((0, 0), True)):
        state, _ = task.step(at(task, 1, 4, target), UP, key=jax.random.key(1))
        state, step = task.step(state, UP, key=jax.random.key(2))
        assert bool(step.terminal) == done and float(step.reward) == 0.0
        assert int(state.legs) == (not done)
    one = LateGrid(size=5, legs=1)
    state, _ = one.step(at(one, 1, 4, (0, 4)), UP, key=jax.random.key(1))
    _, step = one.step(state, UP, key=jax.random.key(2))
    assert bool(step.terminal) and float(step.reward) == 1.0


def test_who_knows_the_symbols_always_succeeds():
    task = LateGrid(legs=3, horizon=60)

    def episode(key):
        start_key, walk_key = jax.random.split(key)

        def one(carry, key):
            state, total, over = carry
            act_key, step_key = jax.random.split(key)
            action = towards_the_corner(task, state, key=act_key)
            state, step = task.step(state, action, key=step_key)
            total = total + jnp.where(over, 0.0, step.reward)
            return (state, total, over | step.terminal | step.truncated), None

        begun = (task.reset(key=start_key)[0], jnp.zeros(()), jnp.zeros((), bool))
        return jax.lax.scan(one, begun, jax.random.split(walk_key, task.horizon))[0][1]

    returns = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 64))
    np.testing.assert_array_equal(returns, 1.0)


def test_sizes_that_cannot_be():
    with pytest.raises(SpecificationError, match="late-grid: size = 2 must be at least 3"):
        LateGrid(size=2)
    with pytest.raises(SpecificationError, match="legs = 0 and horizon = 24 at least 1"):
        LateGrid(legs=0)
