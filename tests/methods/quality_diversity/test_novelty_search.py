"""Novelty search against its definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries
from headwater.methods.quality_diversity.novelty_search import NoveltySearch

SPACE = MeasuredSpace(SearchSpace((-1.0,) * 3, (1.0,) * 3, capacity=60), (0.0, 0.0), (1.0, 1.0))


def batch(seed, rows=12):
    draw = np.random.default_rng(seed)
    data = MeasuredQueries(
        *(draw.uniform(size=size).astype(np.float32) for size in ((rows, 3), rows, (rows, 2))),
        np.zeros((rows, 0), np.float32),
    )
    data.value[3] = np.nan
    return jax.tree.map(jnp.asarray, data)


@pytest.mark.parity
def test_the_most_novel_survive():
    method = NoveltySearch(population_size=6, num_neighbours=3, num_added=2, cells=4)
    update = jax.jit(lambda state, data, key: method.update(state, data, key=key)[0])
    state = method.init(SPACE, key=jax.random.key(0))
    members, known = np.zeros((0, 2)), np.zeros((0, 2))
    for seed in range(4):
        data = batch(seed)
        state = update(state, data, jax.random.key(seed))
        good = np.delete(np.asarray(data.measures), 3, axis=0)
        rows = np.concatenate([members, good])
        others = np.concatenate([rows, known])
        apart = np.linalg.norm(rows[:, None] - others[None], axis=-1)
        # Each is nearest to itself.
        novelty = np.sort(apart, axis=1)[:, 1:4].mean(axis=1)
        expected = rows[np.argsort(-novelty)[:6]]
        members = np.asarray(state.population.measures)
        np.testing.assert_allclose(members, expected, rtol=1e-6)
        assert bool(jnp.all(state.alive))
        known = np.asarray(state.known.measures)[np.asarray(state.known.filled)]
        assert len(known) == 2 * (seed + 1)
        assert all(np.any(np.all(good == row, axis=1)) for row in known[-2:])


@pytest.mark.oracle
def test_every_member_has_as_many_children():
    method = NoveltySearch(population_size=6, mutation_scale=0.0, cells=4)
    state = method.init(SPACE, key=jax.random.key(0))
    vary = jax.jit(lambda state, key: method.offspring(state, 12, key=key))
    first = np.asarray(vary(state, jax.random.key(1)))
    assert np.unique(first).size == 36 and 0.3 < first.mean() < 0.7
    state, _ = jax.jit(lambda s, data, key: method.update(s, data, key=key))(
        state, batch(0), jax.random.key(0)
    )
    children = np.asarray(vary(state, jax.random.key(1)))
    parents = np.asarray(state.population.point)
    counts = [int(np.sum(np.all(children == parent, axis=1))) for parent in parents]
    assert counts == [2] * 6
