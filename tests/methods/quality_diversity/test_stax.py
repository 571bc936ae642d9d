"""STAX: TAXONS as long as it explores, with the emitters of SERENE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries
from headwater.methods.quality_diversity.stax import STAX
from headwater.methods.quality_diversity.taxons import TAXONS

SPACE = MeasuredSpace(SearchSpace((0.0,) * 3, (1.0,) * 3, capacity=60), (0.0,), (1.0,), 5)
SMALL = {
    "population_size": 6,
    "num_neighbours": 3,
    "cells": 4,
    "hidden_sizes": (8,),
    "trained": False,
}


@pytest.mark.equivalence("TAXONS")
def test_it_explores_as_taxons_does_and_emitters_begin_at_rewards():
    methods = STAX(phase_evaluations=24, num_emitters=3, **SMALL), TAXONS(**SMALL)
    states = [m.init(SPACE, key=jax.random.key(0)) for m in methods]
    updates = [jax.jit(lambda s, d, key, m=m: m.update(s, d, key=key)[0]) for m in methods]
    draw = np.random.default_rng(0)
    for i in range(2):
        sizes = ((12, 3), 12, (12, 1), (12, 5))
        data = MeasuredQueries(*(jnp.asarray(draw.uniform(size=s), jnp.float32) for s in sizes))
        states = [u(s, data, jax.random.key(i)) for u, s in zip(updates, states)]
    jax.tree.map(np.testing.assert_array_equal, states[0].search, states[1].search)
    emitters = states[0].emitters
    assert bool(emitters.running.all())
    rewarded = np.asarray(emitters.rewarded.solution)[np.asarray(emitters.begun)]
    begun = np.asarray(emitters.point)[:, 0]
    assert {tuple(x) for x in begun} == {tuple(x) for x in rewarded}
    # It is their turn: each row is a child of its emitter.
    vary = jax.jit(lambda state, key: methods[0].offspring(state, 12, key=key))
    children = np.asarray(vary(states[0], jax.random.key(3)))
    nearest = np.linalg.norm(children[:, None] - begun[None], axis=-1)
    spread = np.asarray(emitters.spread)[np.arange(12) % 3]
    assert np.all(nearest[np.arange(12), np.arange(12) % 3] < 6.0 * spread)
