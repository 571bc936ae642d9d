"""Batches that are read in parts, so that no more than one part has to be kept in memory."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Values = TypeVar("Values")


def in_parts(function: Callable[[Any], Values], rows: Any, parts: int) -> Values:
    """`function(rows)`, of one part of the rows after the other.

    Nothing of a part but its values is kept: for a gradient it is read once more. That gradient is
    the one of all rows together, whatever is made of the values, so that a loss that compares rows,
    or averages over the tokens of all of them, is that of the whole batch.

    **Arguments:** `function`: of rows to a tree of arrays, of which no row depends on another;
    `rows`: a tree of arrays with a leading axis; `parts`: how many, as equal as they can be.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    size = math.ceil(count / parts)
    if size >= count:
        return function(rows)
    parts = math.ceil(count / size)

    def divided(x):
        # Rows that fill up the last part are read and thrown away.
        filled = jnp.pad(x, [(0, parts * size - count), *[(0, 0)] * (x.ndim - 1)])
        return filled.reshape(parts, size, *x.shape[1:])

    # Within a loop nothing can be merged with what is computed again.
    frugal = jax.checkpoint(function, prevent_cse=False)
    values = jax.lax.map(frugal, jax.tree.map(divided, jax.tree.map(jnp.asarray, rows)))
    return jax.tree.map(lambda x: x.reshape(parts * size, *x.shape[2:])[:count], values)


def texts_in_parts(function: Callable[[Any], Values], texts: Any, parts: int) -> Values:
    """As `in_parts`, of texts `[*batch, position]`; values have the same leading axes."""
    batch = jax.tree.leaves(texts)[0].shape[:-1]
    rows = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, x.shape[-1]), texts)
    values = in_parts(function, rows, parts)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), values)
