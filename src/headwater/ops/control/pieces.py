"""One batch cut into equal pieces: a step on each, or one gradient from all."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError

State = TypeVar("State")
Data = TypeVar("Data")
Stacked = TypeVar("Stacked")
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


def gradient_in_pieces(
    loss: Callable[[Stacked, Data], tuple[Float[Array, ""], Metrics]],
    stacked: Stacked,
    rows: Data,
    size: int | None,
) -> tuple[Stacked, dict[str, Float[Array, " member"]]]:
    """The gradient of a loss that is a sum over members and a mean over rows.

    Taken from `size` rows of one member at a time, which is faster where the activations of all
    would not stay in the cache; from everything at once if `size` is `None`.

    **Arguments:** `loss`: of arrays like `stacked`, with one member, and of some of the rows;
    `stacked`: arrays with a leading `member` axis; `rows`: arrays with a leading axis of rows, a
    multiple of `size`.

    **Returns:** the gradient, and each metric for every member.
    """
    total = jax.tree.leaves(rows)[0].shape[0]
    pieces = 1 if size is None else total // size
    cut = jax.tree.map(lambda x: x.reshape(pieces, total // pieces, *x.shape[1:]), rows)

    def of_one(member: PyTree) -> PyTree:
        member = jax.tree.map(lambda x: x[None], member)

        def add(total, piece):
            found = jax.grad(loss, has_aux=True)(member, piece)
            return jax.tree.map(jnp.add, total, found), None

        one = jax.tree.map(lambda x: x[0], cut)
        shapes = jax.eval_shape(jax.grad(loss, has_aux=True), member, one)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total = jax.lax.scan(add, nothing, cut)[0]
        gradient, metrics = jax.tree.map(lambda x: x / pieces, total)
        return jax.tree.map(lambda x: x[0], gradient), metrics

    return jax.vmap(of_one)(stacked) if size is None else jax.lax.map(of_one, stacked)
