"""The state that the TD3 family shares, and the steps that its members share.

A step takes the method itself for its `settings`: each member of the family has the
hyper-parameters that `DeterministicSettings` lists, as fields with defaults of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.method import ActorCriticParts
from headwater.core.records import Transitions
from headwater.networks.actors import DeterministicActor
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import ensemble_error
from headwater.ops.control.exploration import smoothed_action
from headwater.ops.control.gradient_steps import begin, descend, polyak

Metrics = dict[str, Float[Array, ""]]
Number = float | Float[Array, ""]


class DeterministicActorCritic(eqx.Module):
    """Networks, targets, optimiser moments and the scale of observations taken from the data.

    `actor_loss` is that of the last step of the actor, so that it can be logged between them.
    """

    actor: DeterministicActor
    critics: Ensemble
    target_actor: DeterministicActor
    target_critics: Ensemble
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    normaliser: Normaliser
    actor_loss: Float[Array, ""]
    step: Int[Array, ""]


@runtime_checkable
class DeterministicSettings(Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def target_policy_noise(self) -> Number: ...
    @property
    def target_noise_clip(self) -> Number: ...
    @property
    def learning_rate(self) -> Number: ...
    @property
    def polyak_rate(self) -> Number: ...


def begin_deterministic(
    actor: DeterministicActor, critics: Ensemble, normaliser: Normaliser
) -> DeterministicActorCritic:
    """The state before any data: targets equal to the networks, moments of Adam at zero."""
    adam = optax.adam(0.0)
    return DeterministicActorCritic(
        actor=actor,
        critics=critics,
        target_actor=actor,
        target_critics=critics,
        actor_optimiser=begin(adam, actor),
        critic_optimiser=begin(adam, critics),
        normaliser=normaliser,
        actor_loss=jnp.zeros(()),
        step=jnp.zeros((), jnp.int32),
    )


def smoothed_next_action(
    settings: DeterministicSettings,
    state: DeterministicActorCritic,
    data: Transitions,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "batch action"], Float[Array, " batch"]]:
    """The target actor's next action with clipped noise, and its lowest value by the targets."""
    action = smoothed_action(
        state.target_actor(data.next_observation),
        key=key,
        noise=settings.target_policy_noise,
        largest=settings.target_noise_clip,
    )
    return action, jnp.min(state.target_critics(data.next_observation, action), axis=0)


def regress_critics(
    settings: DeterministicSettings,
    state: DeterministicActorCritic,
    data: Transitions,
    target: Float[Array, " batch"],
) -> tuple[DeterministicActorCritic, Metrics]:
    """One step of the critics towards `target`, in squared error summed over them."""

    def loss(critics: Ensemble):
        prediction = critics(data.observation, data.action)
        error = ensemble_error(prediction, target)
        return error, {"critic_loss": error, "q": jnp.mean(prediction)}

    gradients, metrics = jax.grad(loss, has_aux=True)(state.critics)
    critics, critic_optimiser = descend(
        optax.adam(settings.learning_rate), gradients, state.critic_optimiser, state.critics
    )
    return dataclasses.replace(state, critics=critics, critic_optimiser=critic_optimiser), metrics


def improve_actor_when_due(
    settings: DeterministicSettings,
    state: DeterministicActorCritic,
    loss: Callable[[DeterministicActor], Float[Array, ""]],
    *,
    due: Bool[Array, ""],
    target_follows: Literal["new", "old"] = "new",
) -> tuple[DeterministicActorCritic, Metrics]:
    """If `due`, one step of the actor down `loss` and of both targets; counts the update.

    **Arguments:** `target_follows`: whether the target actor moves towards the actor from after its
    step or from before.
    """

    def improve():
        value, gradients = jax.value_and_grad(loss)(state.actor)
        actor, moments = descend(
            optax.adam(settings.learning_rate), gradients, state.actor_optimiser, state.actor
        )
        followed = actor if target_follows == "new" else state.actor
        target_actor = polyak(state.target_actor, followed, settings.polyak_rate)
        target_critics = polyak(state.target_critics, state.critics, settings.polyak_rate)
        return actor, target_actor, target_critics, moments, value

    def wait():
        targets = state.target_actor, state.target_critics
        return state.actor, *targets, state.actor_optimiser, state.actor_loss

    actor, target_actor, target_critics, moments, last_loss = jax.lax.cond(due, improve, wait)
    state = dataclasses.replace(
        state,
        actor=actor,
        target_actor=target_actor,
        target_critics=target_critics,
        actor_optimiser=moments,
        actor_loss=last_loss,
        step=state.step + 1,
    )
    return state, {"actor_loss": last_loss}


def parts_of(state: DeterministicActorCritic) -> ActorCriticParts:
    """The networks, with the moments of their optimisers."""
    return ActorCriticParts(
        actor=state.actor,
        normaliser=state.normaliser,
        critics=state.critics,
        target_critics=state.target_critics,
        actor_optimiser=state.actor_optimiser,
        critic_optimiser=state.critic_optimiser,
    )
