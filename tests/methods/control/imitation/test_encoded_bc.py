"""Cloning on features against cloning of a log of these features."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest

from headwater.core.spaces import Box
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.imitation.encoded_bc import EncodedBC

from ..numpy_twin import batch, begin, problem, update


@pytest.mark.equivalence
@pytest.mark.parametrize("discrete", [False, True])
def test_it_is_cloning_of_a_log_of_features(discrete):
    shared = {"learning_rate": 1e-2, "hidden_sizes": (8,)}
    ours = EncodedBC(embedding_size=5, weight_decay=0.0, **shared)
    plain = BC(normalise_observations=False, **shared)
    state = begin(ours, discrete)
    seen = dataclasses.replace(problem(discrete), observation=Box((-1.0,) * 5, (1.0,) * 5))
    other = plain.init(seen, key=jax.random.key(0))
    other = eqx.tree_at(lambda s: s.actor, other, state.actor)
    first = state.encoding
    for i in range(3):
        data = batch(i, discrete)
        encoded = eqx.tree_at(lambda d: d.observation, data, first(data.observation))
        state, metrics = update(ours, state, data, key=jax.random.key(i))
        other, expected = update(plain, other, encoded, key=jax.random.key(i))
        np.testing.assert_allclose(metrics["actor_loss"], expected["actor_loss"], rtol=1e-5)
    for left, right in zip(jax.tree.leaves(state.actor), jax.tree.leaves(other.actor)):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    for left, right in zip(jax.tree.leaves(state.encoding), jax.tree.leaves(first)):
        np.testing.assert_array_equal(left, right)
    observation, key = data.observation[1], jax.random.key(7)
    action = ours.act(state, observation, key=key, explore=False)[0]
    np.testing.assert_allclose(
        action, plain.act(other, first(observation), key=key, explore=False)[0], rtol=1e-4
    )


def test_features_learn_where_they_should():
    method = EncodedBC(train_encoder=True, embedding_size=5, hidden_sizes=(8,))
    state = begin(method, False)
    after, _ = update(method, state, batch(0, False), key=jax.random.key(0))
    moved = [
        np.abs(left - right).max()
        for left, right in zip(jax.tree.leaves(state.encoding), jax.tree.leaves(after.encoding))
    ]
    # All weights and biases of the encoder, and neither the scale of observations nor of rewards.
    assert min(moved[:4]) > 0 and moved[4:] == [0, 0, 0]
