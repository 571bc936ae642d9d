"""Entropy-regularised control: values, policies, temperatures."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
