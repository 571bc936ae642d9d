"""Planning by the cross-entropy method: in a model whose best plan is known, and in NumPy."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractDynamics, AbstractMethod, Info
from headwater.core.records import ModelPrediction, ModelStep, Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.model_based.pets import PETS
from headwater.ops.control.noise import normal

SPACES = Spaces(Box((-9.0,), (9.0,)), Box((-1.0,), (1.0,)))


class Nothing(eqx.Module):
    """No state."""


class Known(AbstractMethod[Spaces, Transitions, Nothing], AbstractDynamics[Nothing]):
    """A point that moves by half the action, ends above 2, and is paid for being near `target`."""

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info("a test", summary="a known model")
    target: float = 1.0

    def init(self, problem, *, key):
        return Nothing()

    def update(self, state, data, *, key):
        return state, {}

    def predict(self, state, observation, action):
        step = self.step(state, observation, action, key=jax.random.key(0))
        nothing = jnp.zeros(())
        return ModelPrediction(*step, nothing, nothing, jnp.zeros((), bool))

    def step(self, state, observation, action, *, key):
        following = observation + 0.5 * action
        return ModelStep(following, -((following[0] - self.target) ** 2), following[0] > 2.0)


def method(**settings):
    return PETS(dynamics=Known(), **{"num_particles": 1, "num_plans": 60, **settings})


def act(planner, observation):
    state = planner.init(SPACES, key=jax.random.key(0))
    choose = jax.jit(lambda o: planner.act(state, o, key=jax.random.key(0), explore=False)[0])
    return np.asarray(choose(jnp.asarray([observation])))


@pytest.mark.oracle
def test_it_goes_where_the_model_says_that_it_is_best():
    planner = method(planning_steps=4, planning_rounds=8, num_plans=200)
    # Half a step is all that can be done at once, and less is enough nearby.
    np.testing.assert_allclose(act(planner, -1.0), [1.0], atol=0.05)
    np.testing.assert_allclose(act(planner, 0.9), [0.2], atol=0.05)
    np.testing.assert_allclose(act(planner, 1.6), [-1.0], atol=0.05)


@pytest.mark.oracle
def test_nothing_is_paid_behind_the_end():
    # Every step costs, and one beyond 2 is the last: it is best to end at once.
    near = PETS(dynamics=Known(target=-6.0), num_particles=1, num_plans=60, planning_steps=6)
    assert act(near, 1.8)[0] > 0.4


@pytest.mark.parity
def test_one_round_is_what_it_says():
    planner = method(planning_steps=3, planning_rounds=1, best_share=0.25, discount=0.8)
    draw_key = jax.random.split(jax.random.key(0))[0]
    noise = np.asarray(normal(jax.random.split(draw_key, 1)[0], (60, 3, 1)))
    plans = np.clip(0.5 * noise, -1.0, 1.0)[..., 0]
    place, worth = np.full(60, 0.3), np.zeros(60)
    for step in range(3):
        place = place + 0.5 * plans[:, step]
        worth -= 0.8**step * (place - 1.0) ** 2
    best = plans[np.argsort(-worth)[:15]]
    np.testing.assert_allclose(act(planner, 0.3), 0.9 * best[:, :1].mean(axis=0), rtol=1e-4)


def test_actions_have_to_be_continuous():
    with pytest.raises(SpecificationError, match="PETS"):
        PETS().init(Spaces(SPACES.observation, Discrete(2)), key=jax.random.key(0))
