"""A soft actor-critic that is held near a policy: its state, and the steps that methods share.

A step takes the method itself for its `settings`, as those of `soft_actor_critic.py` do.
"""

import dataclasses
from functools import partial
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from headwater.core.method import AbstractActorCritic, Agent
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import candidate_values
from headwater.networks.distributions import divergence_from
from headwater.ops.control.ensemble import Reduction, reduce_members
from headwater.ops.control.gradient_steps import descend, polyak
from headwater.ops.control.pieces import step_on_pieces
from headwater.parts.soft_actor_critic import (
    Actor,
    Metrics,
    Number,
    SoftActorCritic,
    SoftSettings,
    begin_from,
    begin_soft,
    improve_temperature,
    regress_critics,
    soft_target,
    soft_value,
    target_entropy,
)


class NearPolicy(eqx.Module):
    """An actor-critic, and the policy that its actor is held near."""

    soft: SoftActorCritic
    anchor: Actor


class NearPolicySettings(SoftSettings, Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def kl_weight(self) -> Number: ...
    @property
    def anchor_rate(self) -> Number: ...
    @property
    def num_target_critics(self) -> int: ...
    @property
    def num_critic_updates(self) -> int: ...
    @property
    def actor_reduction(self) -> Reduction: ...


def begin_near(settings: NearPolicySettings, problem: Spaces, *, key: PRNGKeyArray) -> NearPolicy:
    """The state before any data, held near the actor that it begins with."""
    soft = begin_soft(settings, problem, key=key)
    return NearPolicy(soft, soft.actor)


def begin_near_learned(
    settings: NearPolicySettings, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
) -> NearPolicy | None:
    """The state that goes on with what another method has learned, held near its actor.

    `None` if that has no stochastic actor.
    """
    if not isinstance(learned.method, AbstractActorCritic):
        return None
    fresh = begin_soft(settings, problem, key=key)
    parts = learned.method.parts(learned.state)
    soft = begin_from(parts, fresh, settings.initial_temperature)
    return None if soft is None else NearPolicy(soft, soft.actor)


def improve_near(
    settings: NearPolicySettings, state: NearPolicy, data: Transitions, *, key: PRNGKeyArray
) -> tuple[NearPolicy, Metrics]:
    """Steps of the critics on pieces of `data`, one of the actor, then of the temperature.

    In the end the anchor moves a share `anchor_rate` of the way to the actor.
    """
    data = state.soft.normaliser.transitions(data)
    critic_key, actor_key = jax.random.split(key)
    soft, learned, _ = step_on_pieces(
        partial(_learn_values, settings),
        state.soft,
        data,
        settings.num_critic_updates,
        key=critic_key,
    )
    state = dataclasses.replace(state, soft=soft)
    soft, improved = _improve_actor(settings, state, data.observation, key=actor_key)
    target = target_entropy(state.soft.actor(data.observation), settings.target_entropy)
    soft, tuned = improve_temperature(settings, soft, improved["entropy"], target)
    anchor = polyak(state.anchor, soft.actor, settings.anchor_rate)
    return NearPolicy(soft, anchor), {**learned, **improved, **tuned}


def _learn_values(
    settings: NearPolicySettings, soft: SoftActorCritic, data: Transitions, key: PRNGKeyArray
):
    target = soft_target(settings, soft, data, members=settings.num_target_critics, key=key)
    return regress_critics(settings, soft, data, target)


def _improve_actor(
    settings: NearPolicySettings, state: NearPolicy, observation: Array, *, key: PRNGKeyArray
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the actor up its gain over the anchor, by the same draw, and towards it."""
    soft, anchor = state.soft, state.anchor(observation)
    temperature = jnp.exp(soft.log_temperature)
    action, _, chance = anchor.expectation(key)
    usual = candidate_values(soft.critics, observation, action)
    usual = jnp.sum(chance[None] * usual, axis=1, keepdims=True)

    def loss(actor: Actor):
        policy = actor(observation)
        action, log_density, weight = policy.expectation(key)
        gains = candidate_values(soft.critics, observation, action) - usual
        gain = reduce_members(gains, settings.actor_reduction)
        value = jnp.mean(soft_value(gain, log_density, weight, temperature))
        divergence = jnp.mean(divergence_from(policy, anchor))
        entropy = -jnp.mean(jnp.sum(weight * log_density, axis=0))
        return settings.kl_weight * divergence - value, (entropy, divergence)

    slope = jax.value_and_grad(loss, has_aux=True)
    (actor_loss, (entropy, divergence)), gradients = slope(soft.actor)
    adam = optax.adam(settings.actor_learning_rate)
    actor, moments = descend(adam, gradients, soft.actor_optimiser, soft.actor)
    soft = dataclasses.replace(soft, actor=actor, actor_optimiser=moments)
    return soft, {"actor_loss": actor_loss, "entropy": entropy, "divergence": divergence}
