"""A soft actor-critic that learns from rollouts in a learned model: what such methods share.

A function takes the method itself for its `settings`.
"""

import dataclasses
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.catalogue import build_method
from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractDynamics, AbstractMethod, Metrics
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.parts.soft_actor_critic import SoftActorCritic

_LOOKED_AT = 32
"""Rows of a batch of which it is asked whether they lie beyond the data: all would cost much."""


class WithModel(eqx.Module):
    """An actor-critic, and the state of the method that learned the model."""

    learner: SoftActorCritic
    model: Any


@runtime_checkable
class ModelSettings(Protocol):
    """The hyper-parameter that is read from a method."""

    @property
    def dynamics(self) -> AbstractMethod: ...


def dynamics_method() -> Any:
    """The field of the method that learns the model."""
    return eqx.field(default_factory=partial(build_method, "DynamicsEnsemble"))


def dynamics_of(settings: ModelSettings) -> AbstractDynamics:
    """What learns the model. Raises `SpecificationError` if it learns none."""
    if not isinstance(settings.dynamics, AbstractDynamics):
        raise SpecificationError(
            f"{type(settings).__name__}.dynamics = {settings.dynamics!r}: it must be a method that "
            "learns where actions lead, such as DynamicsEnsemble()"
        )
    return settings.dynamics


def begin_with_model(
    settings: ModelSettings, problem: Spaces, learner: SoftActorCritic, *, key: PRNGKeyArray
) -> WithModel:
    """The state before any data, the model's included."""
    dynamics_of(settings)
    return WithModel(learner, settings.dynamics.init(problem, key=key))


def learned(
    settings: ModelSettings,
    state: WithModel,
    learner: SoftActorCritic,
    metrics: Metrics,
    data: Transitions,
) -> tuple[WithModel, Metrics]:
    """The state after an update, and how much of the batch lies beyond the model's data.

    **Arguments:** `learner`, `metrics`: after the update; `data`: as it came from the source.
    """
    return dataclasses.replace(state, learner=learner), {
        **metrics,
        "beyond_data": share_beyond(settings, state, data),
    }


def share_beyond(settings: ModelSettings, state: WithModel, data: Transitions) -> Float[Array, ""]:
    """The share of the first rows whose observation and action lie beyond the model's data."""
    dynamics = dynamics_of(settings)

    def beyond(observation: Array, action: Array) -> Array:
        return dynamics.predict(state.model, observation, action).beyond

    found = jax.vmap(beyond)(data.observation[:_LOOKED_AT], data.action[:_LOOKED_AT])
    return jnp.mean(found.astype(jnp.float32))
