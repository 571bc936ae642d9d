"""Passes over stored rows: in each of them every row comes once, in an order of its own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from headwater.core.errors import SpecificationError


class Pass(eqx.Module):
    """Where a pass over rows is, or those of several seeds.

    **Arguments:** `key`: the data of the key that all orders follow from; `number`: of the pass;
    `order`: of its rows; `place`: how many of them were taken.
    """

    key: UInt32[Array, "*seed word"]
    number: Int[Array, "*seed"]
    order: Int[Array, "*seed row"]
    place: Int[Array, "*seed"]


def refuse_weighted_passes(passes: bool, weights: Any) -> None:
    """Raises `SpecificationError` where rows are to come once in each pass, and by weight."""
    if passes and weights is not None:
        raise SpecificationError(
            "in a pass every row comes once, whatever its weight: leave out the weights, or passes"
        )


def first_pass(count: int, key: PRNGKeyArray) -> Pass:
    """Before the first of `count` rows is taken."""
    zero = jnp.zeros((), jnp.int32)
    data = jax.random.key_data(key)
    return Pass(data, zero, _order(data, zero, count), zero)


def next_rows(state: Pass, rows: int) -> tuple[Pass, Int[Array, " taken"]]:
    """The next so many rows; those of the next pass follow where this one ends.

    **Arguments:** `rows`: at most as many as there are.
    """
    count = state.order.shape[0]
    place = state.place + jnp.arange(rows)
    ends = state.place + rows >= count
    number = state.number + ends
    order = jax.lax.cond(ends, lambda: _order(state.key, number, count), lambda: state.order)
    taken = jnp.where(place < count, state.order[place % count], order[place % count])
    return Pass(state.key, number, order, (state.place + rows) % count), taken


def _order(key: Array, number: Int[Array, ""], count: int) -> Int[Array, " row"]:
    key = jax.random.fold_in(jax.random.wrap_key_data(key), number)
    return jax.random.permutation(key, count).astype(jnp.int32)
