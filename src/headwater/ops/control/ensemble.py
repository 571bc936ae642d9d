"""What several networks that predict the same thing say together."""

from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.fields import check_choice

Stacked = TypeVar("Stacked")

Reduction = Literal["min", "mean"]
"""How the predictions of an ensemble become one: the lowest of them, or their mean."""

_FLAT = 1e-12
"""A slope whose square is below this has no direction."""


def reduce_members(
    values: Float[Array, "member *batch"], reduction: Reduction
) -> Float[Array, "*batch"]:
    """One value from those of all members."""
    check_choice(reduction, Reduction, "reduction")
    return jnp.min(values, axis=0) if reduction == "min" else jnp.mean(values, axis=0)


def random_members(stacked: Stacked, count: int, *, key: PRNGKeyArray) -> Stacked:
    """`count` different members of an ensemble; all of them, in order, if it has no more.

    **Arguments:** `stacked`: arrays with a leading `member` axis.
    """
    members = jax.tree.leaves(stacked)[0].shape[0]
    if count >= members:
        return stacked
    chosen = jax.random.choice(key, members, (count,), replace=False)
    return jax.tree.map(lambda x: x[chosen], stacked)


def slope_similarity(slopes: Float[Array, "member *batch action"]) -> Float[Array, "*batch"]:
    """`Σ_{i≠j} cos(g_i, g_j) / (N - 1)`: how alike the members' slopes point, at most N.

    A slope of zero has no direction and counts as orthogonal to all, with a gradient of zero.
    """
    square = jnp.sum(slopes**2, axis=-1, keepdims=True)
    steep = square > _FLAT
    # The inner `where` keeps the derivative of the root finite where its outcome is not used.
    length = jnp.where(steep, jax.lax.rsqrt(jnp.where(steep, square, 1.0)), 0.0)
    directions = slopes * length
    # The sum over all pairs is the square of the sum: no N × N products.
    together = jnp.sum(jnp.sum(directions, axis=0) ** 2, axis=-1)
    alone = jnp.sum(directions**2, axis=(0, -1))
    return (together - alone) / max(slopes.shape[0] - 1, 1)
