"""Random arrays, drawn in one row and then shaped, and numbers that follow from rows of data.

The former are those of `jax.random` for the same key and shape. On processors a row takes a
quarter of the time to compile, and half of the time to draw, that many short rows take: XLA writes
the generator's steps out for every column.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

_POISSON = (0.36788, 0.73576, 0.91970, 0.98101, 0.99634, 0.99941)
"""How probable it is that a row is drawn at most 0, 1, … times by as many draws as there are."""


def normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal numbers of the given shape."""
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], *, low: float = 0.0, high: float = 1.0
) -> Float[Array, "..."]:
    """Uniform numbers of the given shape, in [`low`, `high`)."""
    return jax.random.uniform(key, (math.prod(shape),), minval=low, maxval=high).reshape(shape)


def row_numbers(*columns: Array) -> UInt32[Array, " batch"]:
    """A number for each row that follows from all bits of it, and looks random.

    **Arguments:** `columns`: `[batch, …]`, taken as 32-bit floating-point numbers.
    """
    flat = [jnp.asarray(c, jnp.float32).reshape(c.shape[0], -1) for c in columns]
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(flat, axis=-1), jnp.uint32)
    place = jnp.uint32(0x9E3779B1) * jnp.arange(1, bits.shape[-1] + 1, dtype=jnp.uint32)
    return jnp.sum(_mixed(bits ^ jnp.broadcast_to(place, bits.shape)), axis=-1, dtype=jnp.uint32)


def row_uniform(number: UInt32[Array, " batch"], stream: Array | int) -> Float[Array, " batch"]:
    """Numbers in [0, 1) that follow from the number of a row, others in each `stream`."""
    mixed = _mixed(number + jnp.uint32(0x85EBCA77) * jnp.asarray(stream, jnp.uint32))
    return (mixed >> 8).astype(jnp.float32) / 2**24


def held_out_or_drawn(
    number: UInt32[Array, " batch"], share: float | Array, members: int
) -> tuple[Bool[Array, " batch"], Float[Array, "{members} batch"]]:
    """Which rows are held out, and how often each of the others is drawn for each member.

    As often as in a bootstrap sample: nearly a Poisson number of mean 1.

    **Arguments:** `share`: of the rows, to be held out.
    """
    held_out = row_uniform(number, 0) < share
    drawn = jax.vmap(lambda member: row_uniform(number, member))(1 + jnp.arange(members))
    counts = jnp.zeros_like(drawn)
    for bound in _POISSON:
        counts = counts + (drawn > bound)
    return held_out, jnp.where(held_out[None], 0.0, counts)


def _mixed(bits: Array) -> Array:
    """The final mix of MurmurHash3: each bit of the input turns about half of the output."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
