"""What a task does, in the place of a model of it that is learned."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from headwater.core.feed import Feed
from headwater.core.method import AbstractDynamics, AbstractMethod, Info
from headwater.core.records import ModelPrediction, ModelStep, Transitions
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment


class Unlearned(eqx.Module):
    """State of what learns nothing."""


class TrueDynamics(AbstractMethod[Spaces, Transitions, Unlearned], AbstractDynamics[Unlearned]):
    """A model that knows the task: the bound of what learned models are compared with.

    **Arguments:** `task`: in pure JAX, whose observations tell its state; `state_of`: the state of
    an observation.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info("young2023benefits", summary="knows the task")

    task: AbstractEnvironment
    state_of: Callable

    def init(self, problem: Spaces, *, key) -> Unlearned:
        return Unlearned()

    def update(self, state: Unlearned, data: Transitions, *, key):
        return state, {}

    def predict(self, state: Unlearned, observation: Array, action: Array) -> ModelPrediction:
        found, none = self.step(state, observation, action, key=jax.random.key(0)), jnp.zeros(())
        return ModelPrediction(*found, none, none, jnp.zeros((), bool))

    def step(self, state: Unlearned, observation: Array, action: Array, *, key) -> ModelStep:
        seen = self.task.step(self.state_of(observation), action, key=key)[1]
        return ModelStep(seen.observation, seen.reward, seen.terminal)
