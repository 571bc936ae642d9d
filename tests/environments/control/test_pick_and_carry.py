"""The key, the door and the picture of both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.control.pick_and_carry import PIXELS, PickAndCarry, through
from headwater.environments.experts import expert_of
from headwater.environments.interaction import episode_returns


def states(task, steps=40):
    """Of one episode of the expert, with the rewards."""

    def one(state, key):
        action = task.expert_action(state, key=key)
        reached, step = task.step(state, action, key=key)
        return reached, (reached, step.reward)

    first, _ = task.reset(key=jax.random.key(0))
    return first, jax.lax.scan(one, first, jax.random.split(jax.random.key(1), steps))[1]


def test_the_expert_opens_the_door_and_chance_does_not():
    task = PickAndCarry()
    first, (seen, rewards) = jax.jit(lambda: states(task))()
    holding, opened = np.asarray(seen.holding), np.asarray(seen.opened)
    # In this order, once and for all; the key follows the hand from then on.
    assert 0 < np.argmax(holding) < np.argmax(opened) and holding[-1] and opened[-1]
    assert np.all(np.diff(holding.astype(int)) >= 0) and np.all(np.diff(opened.astype(int)) >= 0)
    np.testing.assert_array_equal(seen.key[holding], seen.hand[holding])
    np.testing.assert_array_equal(seen.key[~holding], np.broadcast_to(first.key, (40, 2))[~holding])
    assert rewards[-1] == 1.0 and np.all(rewards[:-1] == 0.0)

    def at_random(observation, key):
        return jax.random.uniform(key, (2,), minval=-1.0)

    returns = jax.jit(lambda key: episode_returns(task, at_random, episodes=50, key=key))
    assert not np.any(returns(jax.random.key(2)))
    assert expert_of(task)(first, jax.random.key(0)).shape == (2,)


def test_the_door_stays_shut_without_the_key():
    task = PickAndCarry(jnp.asarray([0.3, 0.8]), jnp.asarray(0.4))
    state, _ = task.reset(key=jax.random.key(0))
    at_door = dataclasses.replace(state, hand=jnp.asarray([0.78, 0.4]))
    reached, _ = task.step(at_door, jnp.zeros(2), key=jax.random.key(1))
    assert not reached.opened and not through(reached)


def test_the_picture_changes_with_the_stages_only_if_it_is_to():
    place, height = jnp.asarray([0.3, 0.8]), jnp.asarray(0.4)
    for changes in (True, False):
        task = PickAndCarry(place, height, changes_appearance=changes)
        state, observation = task.reset(key=jax.random.key(0))
        assert observation.shape == (PIXELS**2,)
        picture = np.asarray(observation).reshape(PIXELS, PIXELS)
        row, column = np.unravel_index(picture[:, :8].argmax(), (PIXELS, 8))
        # Hand or key, whichever is nearer to the middle of a pixel.
        middle = (np.asarray([column, row]) + 0.5) / PIXELS
        places = np.stack([state.hand, state.key])
        assert np.linalg.norm(places - middle, axis=1).min() < 0.05
        for name in ("holding", "opened"):
            other = dataclasses.replace(state, **{name: jnp.ones((), bool)})
            assert bool(jnp.all(task.picture(other) == observation)) is not changes


def test_it_lasts_a_step_or_more():
    with pytest.raises(SpecificationError, match="horizon = 0 must be at least 1"):
        PickAndCarry(horizon=0)
