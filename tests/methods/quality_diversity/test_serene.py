"""SERENE: novelty search as long as it explores, and rewards that are climbed to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries
from headwater.environments.black_boxes.measured_box import MeasuredBox
from headwater.methods.quality_diversity.novelty_search import NoveltySearch
from headwater.methods.quality_diversity.serene import SERENE
from headwater.runs.learn import learn
from headwater.sources.queries import LiveMeasuredQueries

SMALL = {"population_size": 6, "num_neighbours": 3, "num_added": 2, "cells": 4}
SPACE = MeasuredSpace(SearchSpace((0.0,) * 3, (1.0,) * 3, capacity=60), (0.0, 0.0), (1.0, 1.0))
TOPS = np.asarray([[0.15, 0.2, 0.5], [0.8, 0.85, 0.5]], np.float32)


@pytest.mark.equivalence("NoveltySearch")
def test_it_explores_as_novelty_search_does():
    one, other = (
        SERENE(phase_evaluations=1_000_000, num_emitters=3, **SMALL),
        NoveltySearch(**SMALL),
    )
    states = [m.init(SPACE, key=jax.random.key(0)) for m in (one, other)]
    updates = [jax.jit(lambda s, d, key, m=m: m.update(s, d, key=key)[0]) for m in (one, other)]
    draw = np.random.default_rng(0)
    for i in range(3):
        sizes = ((12, 3), 12, (12, 2), (12, 0))
        data = MeasuredQueries(*(jnp.asarray(draw.uniform(size=s), jnp.float32) for s in sizes))
        states = [u(s, data, jax.random.key(i)) for u, s in zip(updates, states)]
    jax.tree.map(np.testing.assert_array_equal, states[0].search, states[1])
    # Everything was worth something, and is where an emitter may begin; three did.
    assert int(states[0].emitters.rewarded.count) == 36
    assert int(states[0].emitters.begun.sum()) == 3 and bool(states[0].emitters.running.all())


@pytest.mark.oracle
def test_of_equals_the_child_survives():
    """Else nothing would move where values are flat."""
    method = SERENE(phase_evaluations=12, num_emitters=2, **SMALL)
    state = method.init(SPACE, key=jax.random.key(0))
    update = jax.jit(lambda state, data: method.update(state, data, key=jax.random.key(0))[0])
    draw = np.random.default_rng(0)
    for _ in range(2):
        point, measures = (jnp.asarray(draw.uniform(size=(12, n)), jnp.float32) for n in (3, 2))
        state = update(state, MeasuredQueries(point, jnp.ones(12), measures, jnp.zeros((12, 0))))
    # The first update explored, and the second was the emitters' turn: six children of each.
    members = np.asarray(state.emitters.point)
    for i in range(2):
        assert {tuple(x) for x in members[i]} == {tuple(x) for x in np.asarray(point)[i::2]}


@pytest.mark.oracle
def test_it_climbs_every_hill():
    """Two hills, a thousandth of the space each, and nothing anywhere else."""

    def value(x):
        apart = jnp.sqrt(jnp.sum((x[None, :] - TOPS) ** 2, axis=1))
        return jnp.max(jnp.maximum(0.0, 1.0 - apart / 0.1)), x[:2]

    method = SERENE(population_size=20, num_emitters=4, mutation_scale=0.05, phase_evaluations=200)
    space = SPACE.with_capacity(4_000)
    source = LiveMeasuredQueries(MeasuredBox(value, space), 40)
    found = jax.jit(lambda key: learn(method, space, source, 100, key=key).state.search.found)
    archive = found(jax.random.key(0))
    near = np.abs(np.asarray(archive.measures)[:, None] - TOPS[None, :, :2]).max(-1) < 0.1
    best = [float(np.asarray(archive.objective)[near[:, i]].max()) for i in range(2)]
    assert min(best) > 0.9
