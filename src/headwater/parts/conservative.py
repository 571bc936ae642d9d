"""Critics that are pessimistic about actions that were not logged."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Transitions
from headwater.networks.critics import candidate_values
from headwater.networks.distributions import AbstractDistribution
from headwater.networks.mlp import Ensemble
from headwater.ops.control.bellman import ensemble_error
from headwater.ops.control.descend import descend
from headwater.ops.control.noise import uniform
from headwater.ops.control.pieces import gradient_in_pieces
from headwater.parts.conservative_terms import conservative_gap, raise_to_return
from headwater.parts.soft_actor_critic import (
    ConservativeActorCritic,
    Metrics,
    Number,
    move_critics,
)

_LARGEST_LOG_MULTIPLIER = math.log(1e6)
_CACHED_CANDIDATES = 1024
"""Rows whose activations of 256 units, a megabyte, stay in a processor's own cache."""


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
    state: ConservativeActorCritic,
    data: Transitions,
    target: Float[Array, " batch"],
    *,
    weight: Number,
    proposals: int,
    target_gap: Number | None,
    smallest_gap: Number | None,
    return_to_go: Float[Array, " batch"] | None,
    learning_rate: Number,
    target_rate: Number,
    key: PRNGKeyArray,
) -> tuple[ConservativeActorCritic, Metrics]:
    """One step of the critics towards `target` and down the conservative gap.

    **Arguments:** `weight` of the gap; `proposals`: actions of each origin; `target_gap`: if given,
    `weight` is multiplied by a factor that is learned so that the gap becomes this large;
    `smallest_gap`: if given, smaller ones are not pushed down further; `return_to_go`: if given,
    a bound below which the policy's actions are not pushed.
    """
    # Nothing follows a terminal row, so its second set of proposals comes from where it started.
    ended = jnp.broadcast_to(data.terminal[:, None], data.observation.shape)
    following = jnp.where(ended, data.observation, data.next_observation)
    actions, log_density = propose(
        state.actor(data.observation), state.actor(following), proposals, key=key
    )
    # Logged actions ride along, so that the critics make one product for all of them.
    candidates = jnp.concatenate([actions, data.action[None]])
    if target_gap is not None:
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
        if smallest_gap is not None:
            gap = jnp.maximum(gap, smallest_gap)
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
        loss, state.critics, rows, _rows_together(len(target), len(candidates))
    )
    metrics = {name: jnp.mean(value) for name, value in each.items()}
    metrics["critic_loss"] = jnp.sum(each["critic_loss"])
    state = move_critics(state, gradients, learning_rate=learning_rate, target_rate=target_rate)
    if target_gap is None:
        return state, metrics
    # Descends -(weight · multiplier)·(gap - target_gap) in the logarithm of the multiplier.
    gradient = -weight * (metrics["gap"] - target_gap)
    log_multiplier, multiplier_optimiser = descend(
        optax.adam(learning_rate), gradient, state.multiplier_optimiser, state.log_multiplier
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
