"""Objectives of policy improvement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALLEST_SIZE = 1e-6
"""Values smaller than this on average are not scaled up further: all may be exactly zero."""


def unit_scale(values: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """`values` over their mean absolute size, which counts as a constant in the gradient."""
    size = jnp.maximum(jnp.mean(jnp.abs(values)), _SMALLEST_SIZE)
    return values / jax.lax.stop_gradient(size)
