"""Noise on actions: for exploration, and for smoothing targets."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.ops.control.noise import normal


def smoothed_action(
    action: Float[Array, "*batch action"],
    *,
    key: PRNGKeyArray,
    noise: float | Float[Array, ""],
    largest: float | Float[Array, ""],
) -> Float[Array, "*batch action"]:
    """`action` plus normal noise that is clipped to `±largest`, clipped to the box [-1, 1]."""
    shift = jnp.clip(noise * normal(key, action.shape), -largest, largest)
    return jnp.clip(action + shift, -1.0, 1.0)


def falling_exploration(
    step: Int[Array, ""],
    initial: float | Float[Array, ""],
    final: float | Float[Array, ""],
    decay_updates: float | Float[Array, ""],
) -> Float[Array, ""]:
    """How often to act at random at `step`: from `initial` to `final`, evenly, and then `final`."""
    return initial + jnp.minimum(step / decay_updates, 1.0) * (final - initial)


def greedy(values: Float[Array, " action"]) -> Int[Array, ""]:
    """The action of largest value; the first of several."""
    return jnp.argmax(values).astype(jnp.int32)


def epsilon_greedy(
    values: Float[Array, " action"], epsilon: float | Float[Array, ""], *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """The action of largest value, or with probability `epsilon` any, uniformly."""
    coin_key, action_key = jax.random.split(key)
    anything = jax.random.randint(action_key, (), 0, values.shape[-1], jnp.int32)
    return jnp.where(jax.random.uniform(coin_key) < epsilon, anything, greedy(values))


def epsilon_greedy_log_probability(
    values: Float[Array, " action"], action: Int[Array, ""], epsilon: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Log-probability of `action` under `epsilon_greedy`; -infinity where it is never taken."""
    best = jnp.where(action == jnp.argmax(values), 1.0 - epsilon, 0.0)
    return jnp.log(best + epsilon / values.shape[-1])


def shared_among_best(
    values: Float[Array, "*step state action"],
) -> Float[Array, "*step state action"]:
    """The policy that takes every action of largest value equally often, up to rounding."""
    highest = jnp.max(values, axis=-1, keepdims=True)
    best = (values >= highest - 1e-6 * jnp.maximum(jnp.abs(highest), 1.0)).astype(values.dtype)
    return best / jnp.sum(best, axis=-1, keepdims=True)
