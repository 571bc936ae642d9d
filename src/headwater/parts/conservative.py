"""Pessimism about continuous actions that were not logged, for soft actor-critics."""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import candidate_values
from headwater.networks.distributions import AbstractDistribution
from headwater.networks.mlp import Ensemble
from headwater.ops.control.bellman import ensemble_error
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.control.noise import uniform
from headwater.ops.control.pieces import gradient_in_pieces
from headwater.parts.soft_actor_critic import (
    Metrics,
    Number,
    SoftActorCritic,
    SoftSettings,
    begin_soft,
    move_critics,
)

_LARGEST_LOG_MULTIPLIER = math.log(1e6)
_CACHED_CANDIDATES = 1024
"""Rows whose activations of 256 units, a megabyte, stay in a processor's own cache."""


class ConservativeActorCritic(eqx.Module):
    """A soft actor-critic, and the multiplier of a constraint on its critics."""

    soft: SoftActorCritic
    log_multiplier: Float[Array, ""]
    multiplier_optimiser: optax.OptState


@runtime_checkable
class ConservativeSettings(SoftSettings, Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def conservative_weight(self) -> Number: ...
    @property
    def target_action_gap(self) -> Number | None: ...
    @property
    def min_action_gap(self) -> Number | None: ...
    @property
    def num_action_samples(self) -> int: ...


def begin_conservative(
    settings: ConservativeSettings, problem: Spaces, *, key: PRNGKeyArray
) -> ConservativeActorCritic:
    """The state before any data; the multiplier is e, its start in the authors' code."""
    start = {"initialiser": "orthogonal", "last_scale": 1e-3}
    multiplier = jnp.ones(())
    return ConservativeActorCritic(
        soft=begin_soft(
            settings,
            problem,
            key=key,
            actor_start={"log_std_offset": -1.0, **start},
            critic_start=start,
        ),
        log_multiplier=multiplier,
        multiplier_optimiser=begin(optax.adam(0.0), multiplier),
    )


def propose(
    here: AbstractDistribution, following: AbstractDistribution, count: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "proposal batch action"], Float[Array, "proposal batch"]]:
    """Actions spread over the box, and their log-densities.

    `count` each, in this order: uniform, from the policy `here`, and from the policy in the
    `following` observations. None carries a gradient.
    """
    uniform_key, here_key, following_key = jax.random.split(key, 3)
    shape = here.mode().shape
    anywhere = uniform(uniform_key, (count, *shape), low=-1.0, high=1.0)
    flat = jnp.full((count, shape[0]), -shape[-1] * math.log(2.0))
    near = jax.vmap(here.sample)(jax.random.split(here_key, count))
    ahead = jax.vmap(following.sample)(jax.random.split(following_key, count))
    actions = jnp.concatenate([anywhere, near[0], ahead[0]])
    log_density = jnp.concatenate([flat, near[1], ahead[1]])
    return jax.lax.stop_gradient(actions), jax.lax.stop_gradient(log_density)


def improve_conservatively(
    settings: ConservativeSettings,
    state: ConservativeActorCritic,
    data: Transitions,
    target: Float[Array, " batch"],
    *,
    return_to_go: Float[Array, " batch"] | None,
    key: PRNGKeyArray,
) -> tuple[ConservativeActorCritic, Metrics]:
    """One step of the critics towards `target` and down the conservative gap.

    **Arguments:** `settings`: `conservative_weight` of the gap; `proposals`: actions of each
    origin; `target_action_gap`: if given, the weight is multiplied by a factor that is learned so
    that the gap becomes this large; `min_action_gap`: if given, smaller ones are not pushed down
    further; `return_to_go`: if given, a bound below which the policy's actions are not pushed.
    """
    soft, weight, proposals = state.soft, settings.conservative_weight, settings.num_action_samples
    target_action_gap, min_action_gap = settings.target_action_gap, settings.min_action_gap
    # Nothing follows a terminal row, so its second set of proposals comes from where it started.
    ended = jnp.broadcast_to(data.terminal[:, None], data.observation.shape)
    following = jnp.where(ended, data.observation, data.next_observation)
    actions, log_density = propose(
        soft.actor(data.observation), soft.actor(following), proposals, key=key
    )
    # Logged actions ride along, so that the critics make one product for all of them.
    candidates = jnp.concatenate([actions, data.action[None]])
    if target_action_gap is not None:
        weight = weight * jnp.exp(jnp.minimum(state.log_multiplier, _LARGEST_LOG_MULTIPLIER))

    def loss(ensemble: Ensemble, rows):
        observation, candidates, log_density, target, return_to_go = rows
        q = candidate_values(ensemble, observation, jnp.moveaxis(candidates, 1, 0))
        proposed, logged = q[:, :-1], q[:, -1]
        error = ensemble_error(logged, target)
        metrics = {"critic_loss": error, "q": jnp.mean(logged)}
        if return_to_go is not None:
            proposed, metrics["raised"] = raise_to_return(proposed, return_to_go, proposals)
        gap = conservative_gap(proposed, log_density.T, logged)
        if min_action_gap is not None:
            gap = jnp.maximum(gap, min_action_gap)
        metrics["gap"] = jnp.mean(gap)
        return error + weight * metrics["gap"] * q.shape[0], metrics

    rows = (
        data.observation,
        jnp.moveaxis(candidates, 0, 1),
        log_density.T,
        target,
        return_to_go,
    )
    gradients, each = gradient_in_pieces(
        loss, soft.critics, rows, _rows_together(len(target), len(candidates))
    )
    metrics = {name: jnp.mean(value) for name, value in each.items()}
    metrics["critic_loss"] = jnp.sum(each["critic_loss"])
    state = dataclasses.replace(state, soft=move_critics(settings, soft, gradients))
    if target_action_gap is None:
        return state, metrics
    # Descends -(weight · multiplier)·(gap - target_action_gap) in the logarithm of the multiplier.
    gradient = -weight * (metrics["gap"] - target_action_gap)
    log_multiplier, multiplier_optimiser = descend(
        optax.adam(settings.critic_learning_rate),
        gradient,
        state.multiplier_optimiser,
        state.log_multiplier,
    )
    state = dataclasses.replace(
        state, log_multiplier=log_multiplier, multiplier_optimiser=multiplier_optimiser
    )
    return state, {**metrics, "multiplier": jnp.exp(log_multiplier)}


def _rows_together(rows: int, candidates: int) -> int | None:
    """How many of the `rows` to look at together: all, but on a processor what its cache holds."""
    if jax.default_backend() != "cpu":
        return None
    most = min(rows, max(1, _CACHED_CANDIDATES // candidates))
    even = max(n for n in range(1, most + 1) if rows % n == 0)
    return even if 2 * even > most else rows


def conservative_gap(
    proposed: Float[Array, "member proposal batch"],
    log_density: Float[Array, "proposal batch"],
    logged: Float[Array, "member batch"],
) -> Float[Array, "member batch"]:
    """`log Σ_j exp(Q(s, a_j) - log p(a_j)) - Q(s, a)`: how far proposals exceed logged actions.

    Dividing by the density of each proposal makes the sum estimate, up to a constant factor, the
    integral of `exp Q` over the box.
    """
    return jax.nn.logsumexp(proposed - log_density[None], axis=1) - logged


def raise_to_return(
    proposed: Float[Array, "member proposal batch"],
    return_to_go: Float[Array, " batch"],
    count: int,
) -> tuple[Float[Array, "member proposal batch"], Float[Array, ""]]:
    """Values of the policy's proposals, raised to the logged return where they lie below it.

    **Arguments:** `count`: the first proposals, uniform ones, which stay as they are.

    **Returns:** the values, and the share of the policy's proposals that were raised.
    """
    uniform, policy = proposed[:, :count], proposed[:, count:]
    bound = jnp.broadcast_to(return_to_go, policy.shape)
    raised = jnp.mean((policy < bound).astype(policy.dtype))
    # A value at its bound keeps its whole gradient, as if there were no bound.
    policy = jnp.where(policy < bound, bound, policy)
    return jnp.concatenate([uniform, policy], axis=1), raised
