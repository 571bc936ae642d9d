r"""Exact regression with a Gaussian process, for a black box at one or several fidelities.

With several, the function at fidelity $l$ is $f_l = \rho_{l-1} f_{l-1} + \delta_l$, an
autoregression of independent processes (Kennedy and O'Hagan, 2000).

Everything here is meant to be traced within `double_precision`, or in a function that is
`in_double`: in single precision the matrices of a few dozen evaluations are singular already.
Whatever enters and leaves is single. Programs are compiled after that context has ended, where JAX
cannot draw random numbers of 64 bits or look for their maximum's place: numbers are drawn in single
precision, and `highest` compares.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from headwater.ops.linear_algebra import cholesky, triangular_solve

Kernel = Literal["matern52", "squared_exponential", "hamming"]
"""`hamming` asks of each component whether it is the same, and not how far apart its values are."""

MOST_OBSERVATIONS = 2_000
"""More than this takes minutes a step on a processor and gigabytes for a few seeds."""
SAME = 1e-5
"""Components of the unit cube that are no further apart have the same value, but for rounding."""
_FIRST_JITTER, _LAST_JITTER = 1e-10, 1e-2
_FIT_RATE = 0.1

_Points = Float[Array, "point component"]
_Levels = Int[Array, " point"]


def double_precision() -> contextlib.AbstractContextManager[Any]:
    """A context in which arrays have 64 bits; what surrounds it keeps 32."""
    return jax.enable_x64(True)


def in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of trees of arrays and anything else, computed with 64 bits; it returns 32.

    `jax.vmap` of a loop traces the loop's body again, after the context of the first time has
    ended. What is `in_double` is mapped in a context of its own, however often it is mapped.
    """

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        arrays, rest = eqx.partition(arguments, eqx.is_array)

        def plain(arrays):
            found = function(*eqx.combine(arrays, rest))
            return jax.tree.map(lambda x: x.astype(jnp.float32), found)

        return _mapped_in_double(plain)(arrays)

    return call


def _mapped_in_double(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @jax.custom_batching.custom_vmap
    def call(arrays):
        with double_precision():
            return function(arrays)

    @call.def_vmap
    def mapped(size, batched, arrays):
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, batched[0])
        each = jax.vmap(function, in_axes=(axes,), axis_size=size)
        found = _mapped_in_double(each)(arrays)
        return found, jax.tree.map(lambda _: True, found)

    return call


class Hyperparameters(eqx.Module):
    """Of the process of each fidelity: lengths, deviations, and what each takes from the last.

    **Arguments:** `log_length`; `log_signal`: the standard deviation of the function; `log_noise`:
    of an evaluation; `slope`: ρ of each fidelity but the first.
    """

    log_length: Float[Array, "level component"]
    log_signal: Float[Array, " level"]
    log_noise: Float[Array, " level"]
    slope: Float[Array, " later"]


class Evaluations(eqx.Module):
    """A table with room for evaluations: those that are `known` were made."""

    points: _Points
    levels: _Levels
    values: Float[Array, " point"]
    known: Bool[Array, " point"]


class Posterior(eqx.Module):
    """The process after some evaluations.

    **Arguments:** `inverse_root`: of the inverse covariance of the values, K⁻¹ = RᵀR; `weights`:
    K⁻¹ y; `jitter`: what had to be added to the diagonal, as a share of it.
    """

    kernel: Kernel = eqx.field(static=True)
    hyperparameters: Hyperparameters
    data: Evaluations
    inverse_root: Float[Array, "point point"]
    weights: Float[Array, " point"]
    jitter: Float[Array, ""]

    @property
    def noise(self) -> Float[Array, ""]:
        """The variance of an evaluation at the last fidelity."""
        return jnp.exp(2.0 * self.hyperparameters.log_noise[-1])

    def cross(self, points: _Points, level: int = -1) -> Float[Array, "point known"]:
        """Prior covariances of the function at `points` and the evaluations."""
        levels = _all_at(self.hyperparameters, points, level)
        found = covariance(
            self.kernel, self.hyperparameters, points, levels, self.data.points, self.data.levels
        )
        return jnp.where(self.data.known[None, :], found, 0.0)

    def moments(
        self, points: _Points, level: int = -1
    ) -> tuple[Float[Array, " point"], Float[Array, " point"]]:
        """Mean and standard deviation of the function at `points`, without noise."""
        cross = self.cross(points, level)
        known = cross @ self.inverse_root.T
        prior = prior_variance(self.hyperparameters, level)
        variance = prior - jnp.sum(known**2, axis=1)
        # No point is known better than the arithmetic is exact.
        return cross @ self.weights, jnp.sqrt(jnp.maximum(variance, 1e-14 * prior))

    def with_last(self, points: _Points, level: int) -> Float[Array, " point"]:
        """Covariances of the function at one fidelity and at the last, each at the same point."""
        one, last = (self.cross(points, each) @ self.inverse_root.T for each in (level, -1))
        shares = _shares(self.hyperparameters)
        parts = shares[level] * shares[-1] * jnp.exp(2.0 * self.hyperparameters.log_signal)
        return jnp.sum(parts) - jnp.sum(one * last, axis=1)

    def joint(
        self, points: _Points, others: Float[Array, "other component"]
    ) -> Float[Array, "point other"]:
        """Covariances of the function at the last fidelity, without noise."""
        one, other = (self.cross(x) @ self.inverse_root.T for x in (points, others))
        first, second = (_all_at(self.hyperparameters, x, -1) for x in (points, others))
        prior = covariance(self.kernel, self.hyperparameters, points, first, others, second)
        return prior - one @ other.T


def condition(kernel: Kernel, given: Hyperparameters, data: Evaluations) -> Posterior:
    """The process after the evaluations that are known."""
    matrix = _with_noise(kernel, given, data)
    root, jitter = root_of(matrix)
    inverse = triangular_solve(root, jnp.eye(matrix.shape[0]))
    weights = inverse.T @ (inverse @ jnp.where(data.known, data.values, 0.0))
    return Posterior(kernel, given, data, inverse, weights, jitter)


def root_of(
    matrix: Float[Array, "size size"],
) -> tuple[Float[Array, "size size"], Float[Array, ""]]:
    """The Cholesky root, and what had to be added to the diagonal for it, as a share of the mean.

    That is nothing unless the matrix is singular as far as 64 bits can tell.
    """
    size = matrix.shape[0]
    scale = jnp.mean(jnp.diagonal(matrix))
    least = size * jnp.finfo(matrix.dtype).eps * scale

    def attempt(jitter):
        return cholesky(matrix + jitter * scale * jnp.eye(size))

    def singular(tried):
        jitter, root = tried
        good = jnp.all(jnp.isfinite(root)) & (jnp.min(jnp.diagonal(root)) ** 2 > least)
        return ~good & (jitter < _LAST_JITTER)

    def more(tried):
        jitter = jnp.where(tried[0] > 0.0, 10.0 * tried[0], _FIRST_JITTER)
        return jitter, attempt(jitter)

    none = jnp.zeros((), matrix.dtype)
    jitter, root = jax.lax.while_loop(singular, more, (none, attempt(none)))
    return root, jitter


def covariance(
    kernel: Kernel,
    given: Hyperparameters,
    points: _Points,
    levels: _Levels,
    others: Float[Array, "other component"],
    other_levels: Int[Array, " other"],
) -> Float[Array, "point other"]:
    """Prior covariances of the function at two lots of points, without noise."""
    shares = _shares(given)
    found = jnp.zeros((points.shape[0], others.shape[0]), points.dtype)
    for level in range(given.log_signal.shape[0]):
        length = jnp.exp(given.log_length[level])
        if kernel == "hamming":
            squared = _differences(points, others, length)
        else:
            squared = _squared_distances(points / length[None, :], others / length[None, :])
        shape = _SHAPES[kernel](squared)
        size = jnp.exp(2.0 * given.log_signal[level])
        weight = shares[levels, level][:, None] * shares[other_levels, level][None, :]
        found = found + size * weight * shape
    return found


def prior_variance(given: Hyperparameters, level: int = -1) -> Float[Array, ""]:
    """The variance of the function at a fidelity before any evaluation."""
    return jnp.sum(_shares(given)[level] ** 2 * jnp.exp(2.0 * given.log_signal))


def prior_correlation(given: Hyperparameters) -> Float[Array, ""]:
    """Of the function at the first fidelity and the last, at one point, before any evaluation."""
    shares = _shares(given)
    shared = jnp.sum(shares[0] * shares[-1] * jnp.exp(2.0 * given.log_signal))
    return shared / jnp.sqrt(prior_variance(given, 0) * prior_variance(given))


def fit(
    kernel: Kernel,
    starts: list[Hyperparameters],
    spread: Hyperparameters,
    data: Evaluations,
    steps: int,
) -> Hyperparameters:
    """The most probable hyperparameters, from the best of several starts.

    **Arguments:** `starts`: the first is the mean of the normal prior of all that `Hyperparameters`
    holds; `spread`: its standard deviations, 0 for what stays as it is; `steps`: of Adam, from each
    start.
    """  # fmt: skip
    values = jnp.where(data.known, data.values, 0.0)
    both = data.known[:, None] & data.known[None, :]

    def prior(given: Hyperparameters):
        each = jax.tree.map(
            lambda x, mean, sd: jnp.sum(((x - mean) / jnp.where(sd > 0.0, sd, 1.0)) ** 2),
            given,
            starts[0],
            spread,
        )
        return -0.5 * sum(jax.tree.leaves(each))

    def judged(given: Hyperparameters):
        """The log-posterior, and its gradient, for which no root is differentiated."""
        root, _ = root_of(_with_noise(kernel, given, data))
        inverse = triangular_solve(root, jnp.eye(values.shape[0]))
        weights = inverse.T @ (inverse @ values)
        value = -0.5 * values @ weights - jnp.sum(jnp.log(jnp.diagonal(root))) + prior(given)
        outer = jnp.where(both, jnp.outer(weights, weights) - inverse.T @ inverse, 0.0)
        gradient = jax.grad(
            lambda given: 0.5 * jnp.sum(outer * _with_noise(kernel, given, data)) + prior(given)
        )(given)
        return value, gradient

    optimiser = optax.adam(_FIT_RATE)

    def step(carry, _):
        given, moments, best, most = carry
        value, gradient = judged(given)
        better = value > most
        best = jax.tree.map(lambda x, old: jnp.where(better, x, old), given, best)
        change, moments = optimiser.update(jax.tree.map(jnp.negative, gradient), moments, given)
        change = jax.tree.map(lambda x, sd: jnp.where(sd > 0.0, x, 0.0), change, spread)
        given = optax.apply_updates(given, change)
        return (given, moments, best, jnp.where(better, value, most)), None

    def climb(found, start):
        carry = (start, optimiser.init(start), *found)
        return jax.lax.scan(step, carry, length=steps)[0][2:], None

    none = (starts[0], jnp.asarray(-jnp.inf, values.dtype))
    return jax.lax.scan(climb, none, jax.tree.map(lambda *x: jnp.stack(x), *starts))[0][0]


def _with_noise(kernel: Kernel, given: Hyperparameters, data: Evaluations):
    """The covariance of the values; rows that are not known are those of an identity."""
    found = covariance(kernel, given, data.points, data.levels, data.points, data.levels)
    both = data.known[:, None] & data.known[None, :]
    noise = jnp.exp(2.0 * given.log_noise)[data.levels]
    diagonal = jnp.where(data.known, noise, prior_variance(given))
    return jnp.where(both, found, 0.0) + jnp.diag(diagonal)


def _shares(given: Hyperparameters) -> Float[Array, "level part"]:
    """How much of each independent process is in the function at each fidelity."""
    levels = given.log_signal.shape[0]
    rows = [jnp.eye(levels, dtype=given.log_signal.dtype)[0]]
    for level in range(1, levels):
        rows.append((given.slope[level - 1] * rows[-1]).at[level].set(1.0))
    return jnp.stack(rows)


def _all_at(given: Hyperparameters, points: _Points, level: int) -> _Levels:
    return jnp.full(points.shape[0], level % given.log_signal.shape[0], jnp.int32)


def _squared_distances(one, other):
    across = jnp.sum(one**2, axis=1)[:, None] + jnp.sum(other**2, axis=1)[None, :]
    return jnp.maximum(across - 2.0 * one @ other.T, 0.0)


def _differences(one, other, length):
    """The components in which two points differ, each divided by the square of its length."""
    found = jnp.zeros((one.shape[0], other.shape[0]), one.dtype)
    for component in range(one.shape[1]):
        apart = one[:, component][:, None] - other[:, component][None, :]
        found = found + jnp.where(jnp.abs(apart) > SAME, 1.0, 0.0) / length[component] ** 2
    return found


def _matern52(squared):
    # The root has no derivative at zero, where the kernel's is zero.
    apart = squared > 1e-20
    distance = jnp.sqrt(5.0 * jnp.where(apart, squared, 1.0)) * apart
    return (1.0 + distance + 5.0 / 3.0 * squared) * jnp.exp(-distance)


def _exponential(squared):
    return jnp.exp(-0.5 * squared)


_SHAPES = {
    "matern52": _matern52,
    "squared_exponential": _exponential,
    "hamming": _exponential,
}
