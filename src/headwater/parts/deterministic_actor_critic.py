"""The state that the TD3 family shares, and the steps that its members share.

A step takes the method itself for its `settings`: each member of the family has the
hyper-parameters that `DeterministicSettings` lists, as fields with defaults of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.method import ActorCriticParts
from headwater.core.records import Transitions
from headwater.networks.control.actors import DeterministicActor
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, ensemble_error
from headwater.ops.control.exploration import smoothed_action
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.ops.control.improvement import unit_scale

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


@runtime_checkable
class HeldActorSettings(DeterministicSettings, Protocol):
    """What `step_held_to_actions` reads besides."""

    @property
    def discount(self) -> Number: ...
    @property
    def alpha(self) -> Number: ...
    @property
    def policy_delay(self) -> int | Int[Array, ""]: ...


class UnsmoothedSettings(NamedTuple):
    """Settings of one of two networks that learn at rates of their own, without target noise."""

    learning_rate: Number
    polyak_rate: Number
    target_policy_noise: Number = 0.0
    target_noise_clip: Number = 0.0


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


def first_value_loss(
    state: DeterministicActorCritic, observation: Float[Array, "batch observation"]
) -> Callable[[DeterministicActor], Float[Array, ""]]:
    """The loss of an actor that climbs the first critic: minus the mean value of its actions."""
    first = jax.tree.map(lambda leaf: leaf[0], state.critics.stacked)
    return lambda actor: -jnp.mean(first(observation, actor(observation)))


def step_held_to_actions(
    settings: HeldActorSettings,
    state: DeterministicActorCritic,
    data: Transitions,
    held_to: Callable[[Float[Array, "batch action"]], Float[Array, "batch action"]],
    *,
    key: PRNGKeyArray,
) -> tuple[DeterministicActorCritic, Metrics]:
    """One update of TD3+BC, whose actor is held to actions that may depend on its own.

    **Arguments:** `data`: in the units of the method; `held_to`: from the actor's actions, as
    constants, to the logged ones. It is asked only where the actor learns.
    """
    _, next_value = smoothed_next_action(settings, state, data, key=key)
    target = backup(data.reward, settings.discount, data.terminal, next_value)
    state, learned = regress_critics(settings, state, data, target)
    first = jax.tree.map(lambda leaf: leaf[0], state.critics.stacked)

    def loss(actor: DeterministicActor) -> Float[Array, ""]:
        action = actor(data.observation)
        gain = jnp.mean(unit_scale(first(data.observation, action)))
        logged = held_to(jax.lax.stop_gradient(action))
        return jnp.mean((action - logged) ** 2) - settings.alpha * gain

    due = (state.step + 1) % settings.policy_delay == 0
    state, improved = improve_actor_when_due(settings, state, loss, due=due)
    return state, {**learned, **improved}


def lowest_value(
    state: DeterministicActorCritic, observation: Array, action: Array
) -> Float[Array, "*batch"]:
    """The lowest value of an action by the critics, in the units of the data's rewards."""
    q = jnp.min(state.critics(state.normaliser(observation), action), axis=0)
    return state.normaliser.in_units_of_reward(q)


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
