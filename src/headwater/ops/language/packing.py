"""Texts side by side in one row, so that short ones are not padded to the longest."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from headwater.core.records import Completions, Packing


def lengths_to_read(response: Bool[np.ndarray, "*batch position"]) -> Int[np.ndarray, "*batch"]:
    """Tokens of each text up to the last one of its response, at least one; on the host."""
    place = np.arange(1, response.shape[-1] + 1)
    return np.max(np.where(response, place, 1), axis=-1)


def places(packing: Packing, positions: int) -> Int[Array, "text position"]:
    """Where each token of each text is read, rows counted through; behind all rows if nowhere."""
    texts = packing.row.shape[0]
    place = jnp.broadcast_to(jnp.arange(positions), (texts, positions))
    first = jnp.asarray(packing.row) * packing.width + jnp.asarray(packing.start)
    where = first[:, None] + place
    read = place < jnp.asarray(packing.length)[:, None]
    return jnp.where(read, where, packing.rows * packing.width)


def packed(data: Completions, packing: Packing) -> tuple[Completions, Int[Array, "row position"]]:
    """The texts as they are read.

    **Returns:** tokens and responses `[row, position]`, where the first token of a text, which
    follows nothing, is no response; and which text each token belongs to, counted from 1 (0: none).
    """
    tokens, response = jnp.asarray(data.tokens), jnp.asarray(data.response)
    texts, positions = tokens.shape
    where = places(packing, positions)
    shape = (packing.rows, packing.width)

    def together(values):
        empty = jnp.zeros(packing.rows * packing.width, values.dtype)
        return empty.at[where].set(values, mode="drop").reshape(shape)

    numbers = jnp.broadcast_to(jnp.arange(1, texts + 1)[:, None], (texts, positions))
    follows = response.at[:, 0].set(False)
    return Completions(together(tokens), together(follows)), together(numbers)


def unpacked(
    values: Shaped[Array, "row position"], data: Completions, packing: Packing
) -> Shaped[Array, "text position"]:
    """What was read of each token, back in the places of `data`; zero outside of responses."""
    where = places(packing, data.tokens.shape[-1])
    read = values.reshape(-1).at[where].get(mode="fill", fill_value=0)
    return jnp.where(jnp.asarray(data.response), read, 0)
