"""Several steps on the equal pieces of one batch."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError

State = TypeVar("State")
Data = TypeVar("Data")
Metrics = dict[str, Float[Array, ""]]


def step_on_pieces(
    step: Callable[[State, Data, PRNGKeyArray], tuple[State, Metrics]],
    state: State,
    data: Data,
    pieces: int,
    *,
    key: PRNGKeyArray,
) -> tuple[State, Metrics, Data]:
    """One `step` for each of the `pieces` into which the rows of `data` are cut, in their order.

    Raises `SpecificationError` if the rows cannot be cut into equal pieces.

    **Returns:** the state, the mean of each metric, and the last piece. A single piece gets `key`
    itself, so that it is the same as calling `step`.
    """
    if pieces == 1:
        return *step(state, data, key), data
    rows = jax.tree.leaves(data)[0].shape[0]
    if rows % pieces:
        raise SpecificationError(
            f"a batch of {rows} rows cannot be cut into {pieces} equal pieces: make the batch "
            f"size a multiple of {pieces}"
        )
    cut = jax.tree.map(lambda x: x.reshape(pieces, rows // pieces, *x.shape[1:]), data)

    def one(state, given):
        return step(state, *given)

    state, metrics = jax.lax.scan(one, state, (cut, jax.random.split(key, pieces)))
    return state, jax.tree.map(jnp.mean, metrics), jax.tree.map(lambda x: x[-1], cut)
