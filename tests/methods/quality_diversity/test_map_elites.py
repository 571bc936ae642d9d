"""MAP-Elites on a task whose best solutions are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.measured_box import MeasuredBox
from headwater.methods.quality_diversity.map_elites import MAPElites
from headwater.runs.learn import learn
from headwater.sources.queries import LiveMeasuredQueries

SPACE = MeasuredSpace(SearchSpace((-1.0,) * 4, (1.0,) * 4, capacity=8_000), (-1.0,), (1.0,))
BOX = MeasuredBox(lambda x: (-jnp.sum(x[1:] ** 2), x[:1]), SPACE)


@pytest.mark.oracle
def test_it_finds_the_best_of_every_cell():
    """The measure is the first component, and the others are best at zero."""
    method = MAPElites(cells=10)

    @jax.jit
    def found(key):
        return learn(method, SPACE, LiveMeasuredQueries(BOX, 100), 80, key=key).state.found

    archive = found(jax.random.key(0))
    assert bool(jnp.all(archive.filled))
    # Of 800 solutions at random for each cell the best misses by about 0.02.
    assert np.all(np.asarray(archive.objective) > -5e-3)
    middles = np.asarray(archive.measures)[:, 0]
    np.testing.assert_array_equal(np.floor((middles + 1.0) * 5.0), np.arange(10))


@pytest.mark.parity
def test_children_lie_on_the_line_to_another_solution():
    method = MAPElites(cells=2, mutation_scale=0.0, line_scale=0.5)
    state = method.init(SPACE, key=jax.random.key(0))
    solution = jnp.asarray([[0.4, 0.4, 0.5, 0.5], [0.6, 0.5, 0.5, 0.4]])
    value, measures = jnp.zeros(2), jnp.asarray([[-0.5], [0.5]])
    found = state.found.insert(solution, value, measures)
    vary = jax.jit(lambda state, key: method.offspring(state, 500, key=key))
    children = vary(type(state)(found), jax.random.key(1))
    first, second = np.asarray(solution)
    share = (np.asarray(children)[:, 0] - 0.4) / 0.2
    line = first + share[:, None] * (second - first)
    np.testing.assert_allclose(children, np.clip(line, 0.0, 1.0), atol=1e-6)
    # Half of them are copies: both parents are the same.
    same = np.isin(np.round(share, 5), (0.0, 1.0))
    assert 0.4 < same.mean() < 0.6
    moved = np.where(share > 0.5, share - 1.0, share)[~same]
    assert np.std(np.abs(moved)) > 0.1
