"""Choosing among rows of trees of arrays."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Tree = TypeVar("Tree")


def where_rows(rows: Bool[Array, " row"], new: Tree, old: Tree) -> Tree:
    """The rows of `new` that are marked, and the others of `old`."""

    def chosen(new, old):
        return jnp.where(rows.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(chosen, new, old)
