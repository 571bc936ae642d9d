"""TAXONS: what survives, by its definition in NumPy, and frames that it learns to reconstruct."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries
from headwater.methods.quality_diversity.taxons import TAXONS

SPACE = MeasuredSpace(SearchSpace((0.0,) * 3, (1.0,) * 3, capacity=60), (0.0,), (1.0,), 5)
SMALL = {"population_size": 6, "num_neighbours": 3, "cells": 4, "hidden_sizes": (8,)}


def batch(seed, rows=12):
    draw = np.random.default_rng(seed)
    sizes = ((rows, 3), rows, (rows, 1), (rows, 5))
    return MeasuredQueries(*(jnp.asarray(draw.uniform(size=s), jnp.float32) for s in sizes))


@pytest.mark.parity
def test_what_is_most_novel_or_most_surprising_survives():
    method, data = TAXONS(trained=False, **SMALL), batch(0)
    state = method.init(SPACE, key=jax.random.key(0))
    frame = np.asarray(data.frame)
    features = np.asarray(state.descriptor.encoder(data.frame))
    error = np.asarray(state.descriptor.decoder(jnp.asarray(features))) - frame
    apart = np.linalg.norm(features[:, None] - features[None], axis=-1)
    scores = [np.sort(apart, axis=1)[:, 1:4].mean(axis=1), np.mean(error**2, axis=1)]
    expected = [frame[np.argsort(-score)[:6]] for score in scores]
    update = jax.jit(lambda key: method.update(state, data, key=key)[0].search.population.frame)
    seen = set()
    for seed in range(8):
        found = np.asarray(update(jax.random.key(seed)))
        which = [np.allclose(found, rows) for rows in expected]
        assert sum(which) == 1
        seen.add(which.index(True))
    assert seen == {0, 1}


@pytest.mark.oracle
def test_it_is_trained_after_gaps_that_grow_and_reconstructs_better():
    method = TAXONS(training_evaluations=12, num_steps=200, learning_rate=1e-2, **SMALL)
    update = jax.jit(lambda state, data, key: method.update(state, data, key=key)[0])
    state, trainings, errors = method.init(SPACE, key=jax.random.key(0)), [], []
    for seed in range(7):
        state = update(state, batch(seed), jax.random.key(seed))
        trainings.append(int(state.descriptor.trainings))
        errors.append(float(state.descriptor.loss))
    assert trainings == [1, 1, 2, 2, 2, 3, 3]
    # Frames of independent numbers in [0, 1] have a variance of a twelfth.
    assert errors[0] < 1 / 12 and errors[-1] < errors[0]


def test_seeds_that_are_mapped_train_only_when_it_is_time():
    method, data = TAXONS(training_evaluations=24, num_steps=5, **SMALL), batch(0)

    def update(key):
        return method.update(method.init(SPACE, key=key), data, key=key)[0]

    # A choice that differed among seeds would be made by computing both.
    assert "cond[" in str(jax.make_jaxpr(jax.vmap(update))(jax.random.split(jax.random.key(0), 2)))


def test_nothing_is_learned_of_evaluations_that_failed():
    method = TAXONS(training_evaluations=12, num_steps=5, **SMALL)
    failed = dataclasses.replace(batch(0), value=jnp.full(12, jnp.nan))
    state = method.init(SPACE, key=jax.random.key(0))
    after = jax.jit(lambda s: method.update(s, failed, key=jax.random.key(1))[0])(state)
    assert int(after.descriptor.trainings) == 1
    jax.tree.map(
        np.testing.assert_array_equal,
        (after.descriptor.encoder, after.descriptor.optimiser),
        (state.descriptor.encoder, state.descriptor.optimiser),
    )
