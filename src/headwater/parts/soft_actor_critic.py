"""The state that the soft actor-critic family shares, and the steps that its members share.

All of them name the same parts alike, so that one can start from what another learned.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Transitions
from headwater.networks.actors import CategoricalActor, GaussianActor, TanhGaussianActor
from headwater.networks.critics import candidate_values
from headwater.networks.distributions import AbstractDistribution, Categorical
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, ensemble_error
from headwater.ops.control.descend import begin, descend, polyak
from headwater.ops.control.ensemble import Reduction, random_members, reduce_members
from headwater.parts.soft_policy import best_soft_value, soft_value, temperature_loss

Actor = CategoricalActor | TanhGaussianActor | GaussianActor
Metrics = dict[str, Float[Array, ""]]
Number = float | Float[Array, ""]

LayerNorm = Literal["none", "critics", "both"]
"""Which networks normalise their hidden layers."""


class SoftActorCritic(eqx.Module):
    """Actor, critics and temperature, with targets, optimiser moments and observation scale."""

    actor: Actor
    critics: Ensemble
    target_critics: Ensemble
    log_temperature: Float[Array, ""]
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    temperature_optimiser: optax.OptState
    normaliser: Normaliser


class ConservativeActorCritic(eqx.Module):
    """The parts of a `SoftActorCritic`, and the multiplier of a constraint on the critics."""

    actor: Actor
    critics: Ensemble
    target_critics: Ensemble
    log_temperature: Float[Array, ""]
    log_multiplier: Float[Array, ""]
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    temperature_optimiser: optax.OptState
    multiplier_optimiser: optax.OptState
    normaliser: Normaliser


State = TypeVar("State", SoftActorCritic, ConservativeActorCritic)


def begin_soft(
    actor: Actor, critics: Ensemble, normaliser: Normaliser, initial_temperature: Number
) -> SoftActorCritic:
    """The state before any data: targets equal to the critics, moments of Adam at zero."""
    adam = optax.adam(0.0)
    log_temperature = jnp.log(jnp.asarray(initial_temperature, jnp.float32))
    return SoftActorCritic(
        actor=actor,
        critics=critics,
        target_critics=critics,
        log_temperature=log_temperature,
        actor_optimiser=begin(adam, actor),
        critic_optimiser=begin(adam, critics),
        temperature_optimiser=begin(adam, log_temperature),
        normaliser=normaliser,
    )


def begin_conservative(soft: SoftActorCritic) -> ConservativeActorCritic:
    """`soft` with a multiplier of e, its start in the authors' code."""
    multiplier = jnp.ones(())
    return ConservativeActorCritic(
        **vars(soft),
        log_multiplier=multiplier,
        multiplier_optimiser=begin(optax.adam(0.0), multiplier),
    )


def check_target_members(method: str, members: int, target_members: int) -> None:
    """Raises `SpecificationError` if a target cannot use so many of the critics."""
    if not 1 <= target_members <= members:
        raise SpecificationError(
            f"{method}: target_members={target_members} must be between 1 and members={members}"
        )


def layer_norms(where: LayerNorm) -> tuple[Literal["before"] | None, Literal["before"] | None]:
    """The `layer_norm` option of the actor and of the critics."""
    return "before" if where == "both" else None, None if where == "none" else "before"


def wished_entropy(
    policy: AbstractDistribution, given: Number | None, per_component: float = -1.0
) -> Number:
    """The entropy that the temperature aims at: `given`, or one that follows from the actions.

    That is `per_component` nats for each component of a continuous action, and half of the largest
    possible entropy for discrete ones.
    """
    if given is not None:
        return given
    if isinstance(policy, Categorical):
        return 0.5 * jnp.log(jnp.asarray(policy.logits.shape[-1], jnp.float32))
    return per_component * policy.mode().shape[-1]


def policy_entropy(policy: AbstractDistribution, *, key: PRNGKeyArray) -> Float[Array, ""]:
    """Mean entropy over a batch: an estimate from one sample each, exact for discrete actions."""
    _, log_density, weight = policy.expectation(key)
    return _entropy(log_density, weight)


def soft_target(
    state: State,
    data: Transitions,
    *,
    discount: Number,
    backup_entropy: Number,
    members: int,
    actions: int = 1,
    key: PRNGKeyArray,
) -> Float[Array, " batch"]:
    """What the critics regress to: `r + γ(1-d)·V(s')`.

    **Arguments:** `backup_entropy`: share of the entropy bonus in `V`; `members`: how many target
    critics, drawn anew, take part in the minimum; `actions`: `V` is the expectation over the policy
    if 1, else the largest value among this many actions drawn from it.
    """
    action_key, member_key = jax.random.split(key)
    critics = random_members(state.target_critics, members, key=member_key)
    temperature = backup_entropy * jnp.exp(state.log_temperature)
    policy = state.actor(data.next_observation)
    if actions == 1:
        action, log_density, weight = policy.expectation(action_key)
        q = jnp.min(candidate_values(critics, data.next_observation, action), axis=0)
        value = soft_value(q, log_density, weight, temperature)
    else:
        action, log_density = jax.vmap(policy.sample)(jax.random.split(action_key, actions))
        q = jnp.min(candidate_values(critics, data.next_observation, action), axis=0)
        value = best_soft_value(q, log_density, temperature)
    return backup(data.reward, discount, data.terminal, value)


def improve_critics(
    state: State,
    loss: Callable[[Ensemble], tuple[Float[Array, ""], Metrics]],
    *,
    learning_rate: Number,
    target_rate: Number,
) -> tuple[State, Metrics]:
    """One step of the critics down `loss`, then of the targets towards them."""
    gradients, metrics = jax.grad(loss, has_aux=True)(state.critics)
    state = move_critics(state, gradients, learning_rate=learning_rate, target_rate=target_rate)
    return state, metrics


def move_critics(
    state: State, gradients: Ensemble, *, learning_rate: Number, target_rate: Number
) -> State:
    """The critics one step of Adam against `gradients`, then the targets towards them."""
    critics, critic_optimiser = descend(
        optax.adam(learning_rate), gradients, state.critic_optimiser, state.critics
    )
    return dataclasses.replace(
        state,
        critics=critics,
        target_critics=polyak(state.target_critics, critics, target_rate),
        critic_optimiser=critic_optimiser,
    )


def regress_critics(
    state: State,
    data: Transitions,
    target: Float[Array, " batch"],
    *,
    learning_rate: Number,
    target_rate: Number,
) -> tuple[State, Metrics]:
    """One step of the critics towards `target`, in squared error summed over them."""

    def loss(ensemble: Ensemble):
        prediction = ensemble(data.observation, data.action)
        error = ensemble_error(prediction, target)
        return error, {"critic_loss": error, "q": jnp.mean(prediction)}

    return improve_critics(state, loss, learning_rate=learning_rate, target_rate=target_rate)


def improve_actor(
    state: State,
    observation: Float[Array, "batch observation"],
    *,
    reduction: Reduction,
    learning_rate: Number,
    key: PRNGKeyArray,
) -> tuple[State, Metrics]:
    """One step of the actor up `E[Q(s, a) - α·log π(a|s)]`, `a ~ π`, `reduction` of the critics.

    **Returns:** the state and, with the loss, the `entropy` that the policy had.
    """
    temperature = jnp.exp(state.log_temperature)

    def loss(actor: Actor):
        action, log_density, weight = actor(observation).expectation(key)
        q = reduce_members(candidate_values(state.critics, observation, action), reduction)
        entropy = _entropy(log_density, weight)
        return -jnp.mean(soft_value(q, log_density, weight, temperature)), entropy

    (actor_loss, entropy), gradients = jax.value_and_grad(loss, has_aux=True)(state.actor)
    actor, actor_optimiser = descend(
        optax.adam(learning_rate), gradients, state.actor_optimiser, state.actor
    )
    state = dataclasses.replace(state, actor=actor, actor_optimiser=actor_optimiser)
    return state, {"actor_loss": actor_loss, "entropy": entropy}


def improve_temperature(
    state: State, entropy: Float[Array, ""], target: Number, *, learning_rate: Number
) -> tuple[State, Metrics]:
    """One step of the temperature towards a policy of entropy `target`."""
    gradient = jax.grad(temperature_loss)(state.log_temperature, entropy, target)
    log_temperature, temperature_optimiser = descend(
        optax.adam(learning_rate), gradient, state.temperature_optimiser, state.log_temperature
    )
    state = dataclasses.replace(
        state, log_temperature=log_temperature, temperature_optimiser=temperature_optimiser
    )
    return state, {"temperature": jnp.exp(log_temperature)}


def _entropy(log_density: Array, weight: Array) -> Float[Array, ""]:
    return -jnp.mean(jnp.sum(weight * log_density, axis=0))
