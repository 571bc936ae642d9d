"""Sums of many small numbers in single precision, with what rounding took off kept beside them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_BLOCK = 64
"""Rows that are added to each other before the compensated sum gets them."""


class CompensatedSum(eqx.Module):
    """Sums that do not stagnate: Kahan's, of each cell of a table.

    **Arguments:** `total`; `missing`: what rounding took off the total so far, at most half a unit
    in its last place.
    """

    total: Float[Array, "*shape"]
    missing: Float[Array, "*shape"]


def no_sum(shape: tuple[int, ...]) -> CompensatedSum:
    """Of nothing. Both parts have arrays of their own, since the loop takes each only once."""
    return CompensatedSum(jnp.zeros(shape), jnp.zeros(shape))


def add_to(
    sums: CompensatedSum, at: tuple[Int[Array, "*rows"], ...], values: Float[Array, "..."]
) -> CompensatedSum:
    """Adds `values` to the cells `at`, which must all differ along the last axis of rows.

    **Arguments:** `at`: indices of leading axes of the table, each `[*batch, step]`; `values`: with
    the axes of the table that are left at the end.
    """
    if at[0].ndim == 1:
        total, missing = _add(sums.total[at], sums.missing[at], values)
        return CompensatedSum(sums.total.at[at].set(total), sums.missing.at[at].set(missing))
    steps = at[0].shape[-1]
    rest = values.shape[at[0].ndim :]
    rows = at[0].size // steps
    columns = [index.reshape(rows, steps) for index in at]
    values = values.reshape(rows, steps, *rest)

    def one(sums, block):
        *at, values = block
        added = jnp.zeros_like(sums.total).at[tuple(at)].add(values)
        return add_all(sums, added), None

    if rows <= _BLOCK:
        return one(sums, (*columns, values))[0]
    # Rows that fill up the last block add nothing, wherever they do.
    short = -rows % _BLOCK
    padded = [
        jnp.pad(x, ((0, short), *((0, 0),) * (x.ndim - 1))).reshape(-1, _BLOCK, *x.shape[1:])
        for x in (*columns, values)
    ]
    return jax.lax.scan(one, sums, tuple(padded))[0]


def add_all(sums: CompensatedSum, values: Float[Array, "*shape"]) -> CompensatedSum:
    """Adds to every cell."""
    return CompensatedSum(*_add(sums.total, sums.missing, values))


def _add(total: Array, missing: Array, values: Array) -> tuple[Array, Array]:
    corrected = values + missing
    new = total + corrected
    return new, corrected - (new - total)
