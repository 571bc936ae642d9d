"""The state that the soft actor-critic family shares, and the steps that its members share.

A step takes the method itself for its `settings`: each member of the family has the
hyper-parameters that `SoftSettings` lists, as fields with defaults of its own.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractActorCritic, ActorCriticParts, Agent
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    DeterministicActor,
    GaussianActor,
    TanhGaussianActor,
    stochastic_actor,
)
from headwater.networks.control.critics import alike, candidate_values, critics, raised
from headwater.networks.distributions import AbstractDistribution, Categorical, divergence_from
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, ensemble_error
from headwater.ops.control.ensemble import Reduction, random_members, reduce_members
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.ops.control.pieces import step_on_pieces
from headwater.parts.logged_values import LoggedValueSettings, begin_values

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


class NearPolicy(eqx.Module):
    """An actor-critic, and the policy that its actor is held near."""

    soft: SoftActorCritic
    anchor: Actor


@runtime_checkable
class SoftSettings(Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def discount(self) -> Number: ...
    @property
    def initial_temperature(self) -> Number: ...
    @property
    def target_entropy(self) -> Number | None: ...
    @property
    def backup_entropy(self) -> Number: ...
    @property
    def actor_learning_rate(self) -> Number: ...
    @property
    def critic_learning_rate(self) -> Number: ...
    @property
    def temperature_learning_rate(self) -> Number: ...
    @property
    def polyak_rate(self) -> Number: ...
    @property
    def num_critics(self) -> int: ...
    @property
    def layer_norm(self) -> LayerNorm: ...
    @property
    def normalise_observations(self) -> bool: ...
    @property
    def hidden_sizes(self) -> tuple[int, ...]: ...


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


def begin_soft(
    settings: SoftSettings,
    problem: Spaces,
    *,
    key: PRNGKeyArray,
    actor_start: dict[str, Any] | None = None,
    critic_start: dict[str, Any] | None = None,
) -> SoftActorCritic:
    """The state before any data.

    **Arguments:** `actor_start`, `critic_start`: how their networks start out, see
    `stochastic_actor` and `MLP`.
    """
    actor_key, critic_key = jax.random.split(key)
    both, only_critics = settings.layer_norm == "both", settings.layer_norm != "none"
    actor = stochastic_actor(
        problem,
        settings.hidden_sizes,
        key=actor_key,
        layer_norm="before" if both else None,
        **(actor_start or {}),
    )
    ensemble = critics(
        problem,
        settings.hidden_sizes,
        settings.num_critics,
        key=critic_key,
        layer_norm="before" if only_critics else None,
        **(critic_start or {}),
    )
    if isinstance(settings, LoggedValueSettings):
        normaliser, level = begin_values(settings, problem)
        ensemble = raised(ensemble, level)
    else:
        normaliser = Normaliser(problem, settings.normalise_observations)
    return begin_with(actor, ensemble, normaliser, settings.initial_temperature)


def begin_with(
    actor: Actor, critics: Ensemble, normaliser: Normaliser, initial_temperature: Number
) -> SoftActorCritic:
    """The state with these networks: targets equal to the critics, moments of Adam at zero."""
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


def parts_of(state: SoftActorCritic) -> ActorCriticParts:
    """Everything, moments included."""
    return ActorCriticParts(**vars(state))


def begin_from(
    parts: ActorCriticParts, fresh: SoftActorCritic, initial_temperature: Number
) -> SoftActorCritic | None:
    """The state with all that `parts` has and `fresh` has room for, and the rest from `fresh`.

    Critics of other sizes or numbers than those of `fresh` are left behind, with their targets and
    moments. Moments that `parts` has not are zero. `None` if it has no stochastic actor.
    """
    if isinstance(parts.actor, DeterministicActor):
        return None
    begun = begin_with(parts.actor, fresh.critics, parts.normaliser, initial_temperature)
    given = {name: part for name, part in parts._asdict().items() if part is not None}
    if not alike(parts.critics, fresh.critics):
        for name in ("critics", "target_critics", "critic_optimiser"):
            given.pop(name, None)
    return dataclasses.replace(begun, **given)


def check_target_members(method: str, members: int, num_target_critics: int) -> None:
    """Raises `SpecificationError` if a target cannot use so many of the critics."""
    if not 1 <= num_target_critics <= members:
        raise SpecificationError(
            f"{method}: num_target_critics={num_target_critics} must be between 1 and "
            f"num_critics={members}"
        )


def target_entropy(
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


def soft_target(
    settings: SoftSettings,
    state: SoftActorCritic,
    data: Transitions,
    *,
    members: int,
    actions: int = 1,
    key: PRNGKeyArray,
) -> Float[Array, " batch"]:
    """What the critics regress to: `r + γ(1-d)·V(s')`.

    `V` has a share `backup_entropy` of the bonus for entropy.

    **Arguments:** `members`: how many target critics, drawn anew, take part in the minimum;
    `actions`: `V` is the expectation over the policy if 1, else the largest value among this many
    actions drawn from it.
    """
    action_key, member_key = jax.random.split(key)
    targets = random_members(state.target_critics, members, key=member_key)
    temperature = settings.backup_entropy * jnp.exp(state.log_temperature)
    policy = state.actor(data.next_observation)
    if actions == 1:
        action, log_density, weight = policy.expectation(action_key)
        q = jnp.min(candidate_values(targets, data.next_observation, action), axis=0)
        value = soft_value(q, log_density, weight, temperature)
    else:
        action, log_density = jax.vmap(policy.sample)(jax.random.split(action_key, actions))
        q = jnp.min(candidate_values(targets, data.next_observation, action), axis=0)
        value = best_soft_value(q, log_density, temperature)
    return backup(data.reward, settings.discount, data.terminal, value)


def regress_critics(
    settings: SoftSettings,
    state: SoftActorCritic,
    data: Transitions,
    target: Float[Array, " batch"],
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the critics towards `target`, in squared error summed over them."""

    def loss(ensemble: Ensemble):
        prediction = ensemble(data.observation, data.action)
        error = ensemble_error(prediction, target)
        return error, {"critic_loss": error, "q": jnp.mean(prediction)}

    return improve_critics(settings, state, loss)


def improve_critics(
    settings: SoftSettings,
    state: SoftActorCritic,
    loss: Callable[[Ensemble], tuple[Float[Array, ""], Metrics]],
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the critics down `loss`, then of the targets towards them."""
    gradients, metrics = jax.grad(loss, has_aux=True)(state.critics)
    return move_critics(settings, state, gradients), metrics


def move_critics(
    settings: SoftSettings, state: SoftActorCritic, gradients: Ensemble
) -> SoftActorCritic:
    """The critics one step of Adam against `gradients`, then the targets towards them."""
    ensemble, critic_optimiser = descend(
        optax.adam(settings.critic_learning_rate), gradients, state.critic_optimiser, state.critics
    )
    return dataclasses.replace(
        state,
        critics=ensemble,
        target_critics=polyak(state.target_critics, ensemble, settings.polyak_rate),
        critic_optimiser=critic_optimiser,
    )


def improve_policy(
    settings: SoftSettings,
    state: SoftActorCritic,
    observation: Float[Array, "batch observation"],
    *,
    reduction: Reduction,
    entropy_per_component: float = -1.0,
    key: PRNGKeyArray,
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the actor, then one of the temperature by the entropy that the policy had."""
    policy = state.actor(observation)
    target = target_entropy(policy, settings.target_entropy, entropy_per_component)
    state, improved = improve_actor(settings, state, observation, reduction=reduction, key=key)
    state, tuned = improve_temperature(settings, state, improved["entropy"], target)
    return state, {**improved, **tuned}


def improve_temperature_first(
    settings: SoftSettings,
    state: SoftActorCritic,
    observation: Float[Array, "batch observation"],
    *,
    reduction: Reduction,
    temperature_key: PRNGKeyArray,
    actor_key: PRNGKeyArray,
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the temperature, then one of the actor with the new one."""
    policy = state.actor(observation)
    target = target_entropy(policy, settings.target_entropy)
    _, log_density, weight = policy.expectation(temperature_key)
    entropy = _entropy(log_density, weight)
    state, tuned = improve_temperature(settings, state, entropy, target)
    state, improved = improve_actor(
        settings, state, observation, reduction=reduction, key=actor_key
    )
    return state, {**improved, **tuned}


def improve_actor(
    settings: SoftSettings,
    state: SoftActorCritic,
    observation: Float[Array, "batch observation"],
    *,
    reduction: Reduction,
    key: PRNGKeyArray,
) -> tuple[SoftActorCritic, Metrics]:
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
        optax.adam(settings.actor_learning_rate), gradients, state.actor_optimiser, state.actor
    )
    state = dataclasses.replace(state, actor=actor, actor_optimiser=actor_optimiser)
    return state, {"actor_loss": actor_loss, "entropy": entropy}


def improve_temperature(
    settings: SoftSettings, state: SoftActorCritic, entropy: Float[Array, ""], target: Number
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the temperature towards a policy of entropy `target`."""
    gradient = jax.grad(temperature_loss)(state.log_temperature, entropy, target)
    log_temperature, temperature_optimiser = descend(
        optax.adam(settings.temperature_learning_rate),
        gradient,
        state.temperature_optimiser,
        state.log_temperature,
    )
    state = dataclasses.replace(
        state, log_temperature=log_temperature, temperature_optimiser=temperature_optimiser
    )
    return state, {"temperature": jnp.exp(log_temperature)}


def _entropy(log_density: Array, weight: Array) -> Float[Array, ""]:
    return -jnp.mean(jnp.sum(weight * log_density, axis=0))


def soft_value(
    q: Float[Array, "candidate *batch"],
    log_density: Float[Array, "candidate *batch"],
    weight: Float[Array, "candidate *batch"],
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """`E[Q(s, a) - α·log π(a|s)]`, the expectation over candidate actions with given weights."""
    return jnp.sum(weight * (q - temperature * log_density), axis=0)


def best_soft_value(
    q: Float[Array, "candidate *batch"],
    log_density: Float[Array, "candidate *batch"],
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """`max [Q(s, a) - α·log π(a|s)]` over candidate actions."""
    return jnp.max(q - temperature * log_density, axis=0)


def temperature_loss(
    log_temperature: Float[Array, ""],
    entropy: Float[Array, ""],
    target: float | Float[Array, ""],
) -> Float[Array, ""]:
    """`log α·(H - target)`: descending it raises α while the policy is less random than wished."""
    return log_temperature * jax.lax.stop_gradient(entropy - target)


# Held near a policy ------------------------------------------------------------------------------


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
        partial(_learn_near_values, settings),
        state.soft,
        data,
        settings.num_critic_updates,
        key=critic_key,
    )
    state = dataclasses.replace(state, soft=soft)
    soft, improved = _improve_near_actor(settings, state, data.observation, key=actor_key)
    target = target_entropy(state.soft.actor(data.observation), settings.target_entropy)
    soft, tuned = improve_temperature(settings, soft, improved["entropy"], target)
    anchor = polyak(state.anchor, soft.actor, settings.anchor_rate)
    return NearPolicy(soft, anchor), {**learned, **improved, **tuned}


def _learn_near_values(
    settings: NearPolicySettings, soft: SoftActorCritic, data: Transitions, key: PRNGKeyArray
):
    target = soft_target(settings, soft, data, members=settings.num_target_critics, key=key)
    return regress_critics(settings, soft, data, target)


def _improve_near_actor(
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
