"""The peg and its slot: what stops it, what counts, and who gets it in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.control.peg_insertion import (
    PegInsertion,
    PegInsertionState,
    insertion_action,
    withdrawal_action,
)
from headwater.environments.interaction import episode_returns, random_action


def _moved(side, height, *actions):
    state = PegInsertionState(jnp.asarray(side), jnp.asarray(height), jnp.zeros((), jnp.int32))
    for action in actions:
        state, step = PegInsertion().step(state, jnp.asarray(action), key=jax.random.key(0))
    return [round(float(x), 4) for x in step.observation], float(step.reward)


@pytest.mark.parametrize(
    ("start", "actions", "place", "reward"),
    [
        # The block's top stops it, the slot lets it in, and beside the block is the table.
        ((0.1, 0.45), [(0.0, -1.0)], [0.1, 0.4], 0.0),
        ((0.02, 0.45), [(0.0, -1.0)] * 4, [0.02, 0.1], 1.0),
        ((0.4, 0.15), [(0.0, -1.0)] * 2, [0.4, 0.0], 0.0),
        # In the slot and beside the block its sides stop it; above, a step leads over the slot.
        ((0.0, 0.3), [(1.0, 0.0)], [0.03, 0.3], 0.0),
        ((-0.35, 0.2), [(1.0, 0.0)], [-0.3, 0.2], 0.0),
        ((0.35, 0.2), [(-1.0, 0.0)], [0.3, 0.2], 0.0),
        ((-0.05, 0.4), [(1.0, -1.0)], [0.05, 0.4], 0.0),
        # The walls of the room.
        ((0.95, 0.95), [(1.0, 1.0)], [1.0, 1.0], 0.0),
    ],
)
def test_where_it_goes(start, actions, place, reward):
    assert _moved(*start, *actions) == (place, reward)


def test_the_script_gets_in_and_chance_does_not():
    task = PegInsertion()
    scripted = lambda observation, key: insertion_action(observation)
    by_chance = lambda observation, key: random_action(task.spaces, key=key)
    found = [
        episode_returns(task, act, episodes=200, key=jax.random.key(0)) > 0.0
        for act in (scripted, by_chance)
    ]
    assert np.all(found[0]) and np.mean(found[1]) < 0.03


def test_the_script_undoes_it():
    task = PegInsertion()
    state = PegInsertionState(jnp.asarray(0.01), jnp.asarray(0.1), jnp.zeros((), jnp.int32))
    assert task.done(state) and not task.undone(state)
    for _ in range(20):
        action = withdrawal_action(jnp.stack([state.side, state.height]), -0.6)
        state, _ = task.step(state, action, key=jax.random.key(0))
    assert task.undone(state) and not task.done(state)
    np.testing.assert_allclose(state.side, -0.6, atol=1e-3)


def test_a_horizon_of_nothing():
    with pytest.raises(SpecificationError, match="horizon = 0 must be at least 1"):
        PegInsertion(horizon=0)
