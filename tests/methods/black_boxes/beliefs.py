"""A posterior in NumPy, and methods that have seen a few values, for tests of black boxes."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries

# As a state holds them, whose hyperparameters are logarithms in single precision.
LENGTH, NOISE = (float(np.exp(np.float64(np.float32(np.log(x))))) for x in (0.2, 0.3))
GRID = np.linspace(0.0, 1.0, 21, dtype=np.float32)
GIVEN = {
    "hyperparameters": "given",
    "kernel": "squared_exponential",
    "length_scale": LENGTH,
    "signal_scale": 1.0,
    "noise_scale": NOISE,
    "initial_points": 1,
}
"""Settings with which a method believes what `posterior` does."""


def kernel(one, other):
    return np.exp(-0.5 * ((one[:, None] - other[None, :]) / LENGTH) ** 2)


def seen(rows=6, seed=0):
    """Points of the grid and values."""
    draw = np.random.default_rng(seed)
    return GRID[draw.choice(21, rows, replace=False)], draw.normal(size=rows).astype(np.float32)


def posterior(points, values):
    """Mean and covariance on the grid, in float64."""
    points, grid = points.astype(float), GRID.astype(float)
    inverse = np.linalg.inv(kernel(points, points) + NOISE**2 * np.eye(len(points)))
    cross = kernel(grid, points)
    return cross @ inverse @ values, kernel(grid, grid) - cross @ inverse @ cross.T


def taught(method, points, values, capacity=10, fidelities=None, costs=(1.0,)):
    """The state of a method after these evaluations, of candidates on the grid."""
    space = SearchSpace((0.0,), (1.0,), jnp.asarray(GRID)[:, None], costs=costs, capacity=capacity)
    state = method.init(space, key=jax.random.key(0))
    level = jnp.zeros(len(values), jnp.int32) if fidelities is None else jnp.asarray(fidelities)
    data = Queries(jnp.asarray(points)[:, None], jnp.asarray(values), level, jnp.ones(len(values)))
    return _updated(method, state, data)


_updated = jax.jit(lambda method, state, data: method.update(state, data, key=jax.random.key(0))[0])


@jax.jit
def proposed(method, state):
    """The point that the method proposes."""
    return method.propose(state, key=jax.random.key(0))[0]


@jax.jit
def recommended(method, state):
    """The point that the method recommends."""
    return method.recommend(state, key=jax.random.key(0))
