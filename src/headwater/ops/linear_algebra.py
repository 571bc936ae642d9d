"""Linear algebra of one matrix, safe under `jax.vmap`: on a CPU, one matrix after the other.

Since 0.10, jaxlib cuts a batch of large matrices into tasks for XLA's threads, and the thread that
did so waits for them. Where as many batches run at once as there are threads, all wait for ever: on
two cores the first networks of a learner are enough. A matrix alone is never cut.

On a CPU none of these can be differentiated in reverse, since `sequential_vmap` cannot.
"""

# ruff: noqa: TID251

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_Matrix = Float[Array, "size size"]


def cholesky(matrix: _Matrix) -> _Matrix:
    """The lower root of a symmetric and positive definite matrix; NaN where it is not."""
    return _one_by_one(jnp.linalg.cholesky, matrix)


def cholesky_solve(root: _Matrix, right: Float[Array, "size *columns"]) -> Array:
    """x of `root @ root.T @ x = right`."""
    return _one_by_one(_cholesky_solve, root, right)


def triangular_solve(
    root: _Matrix, right: Float[Array, "size *columns"], *, transposed: bool = False
) -> Array:
    """x of `root @ x = right`, or of `root.T @ x = right`, for a lower triangular `root`."""
    solve = partial(jax.scipy.linalg.solve_triangular, lower=True, trans=int(transposed))
    return _one_by_one(solve, root, right)


def solve(matrix: _Matrix, right: Float[Array, "size *columns"]) -> Array:
    """x of `matrix @ x = right`."""
    return _one_by_one(jnp.linalg.solve, matrix, right)


def symmetric_eigen(matrix: _Matrix) -> tuple[Float[Array, " size"], _Matrix]:
    """The eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns."""
    return _one_by_one(_symmetric_eigen, matrix)


def singular_decomposition(
    matrix: Float[Array, "row column"],
) -> tuple[Float[Array, "row rank"], Float[Array, " rank"], Float[Array, "rank column"]]:
    """Left singular vectors as columns, singular values descending, and right vectors as rows."""
    return _one_by_one(_singular_decomposition, matrix)


def random_orthogonal(
    key: PRNGKeyArray, shape: tuple[int, int], *, scale: float
) -> Float[Array, "row column"]:
    """A random matrix whose shorter side is orthogonal, with vectors of length `scale`."""
    draw = jax.nn.initializers.orthogonal(scale)
    return _one_by_one(lambda key: draw(key, shape), key)


def _cholesky_solve(root, right):
    return jax.scipy.linalg.cho_solve((root, True), right)


def _symmetric_eigen(matrix):
    return tuple(jnp.linalg.eigh(matrix))


def _singular_decomposition(matrix):
    return tuple(jnp.linalg.svd(matrix, full_matrices=False))


def _one_by_one(function: Callable[..., Any], *arguments: Any) -> Any:
    if jax.default_backend() == "cpu":
        function = jax.custom_batching.sequential_vmap(function)
    return function(*arguments)
