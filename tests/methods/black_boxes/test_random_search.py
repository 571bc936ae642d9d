"""Random search: uniform points, and the recommendation of the others."""

import jax
import numpy as np
import pytest

from headwater.core.problems.search_space import SearchSpace
from headwater.methods.black_boxes.gp_ucb import GPUCB
from headwater.methods.black_boxes.random_search import RandomSearch

from .beliefs import GIVEN, GRID, posterior, recommended, seen, taught

SETTINGS = {name: value for name, value in GIVEN.items() if name != "initial_points"}


@pytest.mark.parity
def test_it_recommends_the_highest_mean():
    points, values = seen()
    method = RandomSearch(**SETTINGS)
    state = taught(method, points, values)
    mean, _ = posterior(points, values)
    assert recommended(method, state)[0] == GRID[np.argmax(mean)]


@pytest.mark.equivalence("GPUCB")
def test_it_believes_what_the_others_believe():
    points, values = seen()
    one, other = RandomSearch(), GPUCB()
    jax.tree.map(
        np.testing.assert_array_equal, taught(one, points, values), taught(other, points, values)
    )


@pytest.mark.oracle
def test_points_are_uniform():
    method = RandomSearch(fit_steps=1)
    state = method.init(SearchSpace((0.0, -1.0), (1.0, 1.0), capacity=3), key=jax.random.key(0))
    propose = jax.jit(jax.vmap(lambda key: method.propose(state, key=key)[0]))
    points = np.asarray(propose(jax.random.split(jax.random.key(1), 4_000)))
    np.testing.assert_allclose(points.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(points.var(0), 1 / 12, atol=0.01)
