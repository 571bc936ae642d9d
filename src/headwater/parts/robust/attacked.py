"""Policies that see what an attack shows them, and critics that see what is there.

A step takes the method itself for its `settings`.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import DeterministicActor
from headwater.networks.control.critics import critics
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup
from headwater.ops.control.exploration import smoothed_action
from headwater.ops.control.gradient_steps import descend, polyak
from headwater.parts.deterministic_actor_critic import (
    DeterministicActorCritic,
    DeterministicSettings,
    Metrics,
    begin_deterministic,
    regress_critics,
)

Number = float | Float[Array, ""]


@runtime_checkable
class AttackedSettings(DeterministicSettings, Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def discount(self) -> Number: ...
    @property
    def hidden_sizes(self) -> tuple[int, ...]: ...


class Attack(eqx.Module):
    """Moves each observation as a network says.

    **Arguments:** `network`: from an observation to a number for each of its components, whose
    `tanh` is the share of `reach` by which the component moves.
    """

    network: MLP
    reach: Float[Array, " observation"]

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch observation"]:
        """What is shown in place of an observation."""
        share = jnp.tanh(self.network(observation))
        return observation + jnp.broadcast_to(self.reach, share.shape) * share


def begin_member(
    settings: AttackedSettings, problem: Spaces, *, key: PRNGKeyArray
) -> DeterministicActorCritic:
    """An actor with two critics, before any data."""
    actor_key, critic_key = jax.random.split(key)
    actor = DeterministicActor(problem, settings.hidden_sizes, key=actor_key)
    twins = critics(problem, settings.hidden_sizes, 2, key=critic_key)
    return begin_deterministic(actor, twins, Normaliser(problem, False))


def begin_attackers(
    settings: AttackedSettings, problem: Spaces, count: int, *, key: PRNGKeyArray
) -> MLP:
    """So many networks for `Attack`, stacked."""
    size = problem.observation_size
    begin = lambda key: MLP(size, size, settings.hidden_sizes, key=key)
    return jax.vmap(begin)(jax.random.split(key, count))


def value_under(
    member: DeterministicActorCritic, attack: Attack, observation: Float[Array, "batch observation"]
) -> Float[Array, ""]:
    """The mean value of a policy under an attack, by the first of its critics."""
    first = jax.tree.map(lambda leaf: leaf[0], member.critics.stacked)
    return jnp.mean(first(observation, member.actor(attack(observation))))


def evaluate_under(
    settings: AttackedSettings,
    member: DeterministicActorCritic,
    attack: Attack,
    data: Transitions,
    *,
    key: PRNGKeyArray,
) -> tuple[DeterministicActorCritic, Metrics]:
    """One step of the critics, and of their targets, towards the policy's values under an attack.

    The transitions are those of the process, which no attack changes.
    """
    action = smoothed_action(
        member.target_actor(attack(data.next_observation)),
        key=key,
        noise=settings.target_policy_noise,
        largest=settings.target_noise_clip,
    )
    following = jnp.min(member.target_critics(data.next_observation, action), axis=0)
    target = backup(data.reward, settings.discount, data.terminal, following)
    member, losses = regress_critics(settings, member, data, target)
    targets = polyak(member.target_critics, member.critics, settings.polyak_rate)
    return dataclasses.replace(member, target_critics=targets), losses


def improve_under(
    settings: AttackedSettings,
    member: DeterministicActorCritic,
    attack: Attack,
    observation: Float[Array, "batch observation"],
) -> DeterministicActorCritic:
    """One step of the actor up the policy's value under an attack, then of its target."""

    def loss(actor: DeterministicActor) -> Float[Array, ""]:
        return -value_under(dataclasses.replace(member, actor=actor), attack, observation)

    actor, moments = descend(
        optax.adam(settings.learning_rate),
        jax.grad(loss)(member.actor),
        member.actor_optimiser,
        member.actor,
    )
    target = polyak(member.target_actor, actor, settings.polyak_rate)
    return dataclasses.replace(member, actor=actor, target_actor=target, actor_optimiser=moments)


def part_of(stacked: Any, index: int | Int[Array, "*some"]) -> Any:
    """One of several modules that are stacked, or several of them."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def with_part(stacked: Any, index: Int[Array, ""], part: Any) -> Any:
    """Stacked modules with another one in this place."""
    return jax.tree.map(lambda leaf, new: leaf.at[index].set(new), stacked, part)
