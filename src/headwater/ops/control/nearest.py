"""The rows of a table that are nearest to given points."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_LANES = 512
"""Rows that are compared at once with each point."""


def nearest_rows(
    points: Float[Array, "point component"], rows: Float[Array, "row component"]
) -> Int[Array, " point"]:
    """The row that is nearest to each point in Euclidean distance; one of them, if several are.

    Differences are squared and added up as they are: a product of matrices would lose the digits
    in which near rows differ. Blocks of rows are compared one after the other, each row with the
    nearest so far in its place, and the places with each other at the end.
    """
    count, size = rows.shape
    blocks = -(-count // _LANES)
    # Further copies of the last row change no distance.
    padded = jnp.pad(rows, ((0, blocks * _LANES - count), (0, 0)), mode="edge")
    blocked = padded.reshape(blocks, _LANES, size).transpose(0, 2, 1)
    shape = (len(points), size, _LANES)

    def compare(nearest, block):
        distance, found = nearest
        number, candidates = block
        difference = jnp.broadcast_to(points[:, :, None], shape)
        difference = difference - jnp.broadcast_to(candidates[None], shape)
        squared = jnp.sum(difference**2, axis=1)
        return (jnp.minimum(squared, distance), jnp.where(squared < distance, number, found)), None

    places = (len(points), _LANES)
    begun = jnp.full(places, jnp.inf), jnp.zeros(places, jnp.int32)
    (distance, found), _ = jax.lax.scan(compare, begun, (jnp.arange(blocks), blocked))
    place = jnp.argmin(distance, axis=1)
    block = jnp.take_along_axis(found, place[:, None], axis=1)[:, 0]
    return jnp.minimum(block * _LANES + place, count - 1)
