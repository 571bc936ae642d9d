"""Ensembles: minima, random members, similarity of slopes."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.ops.control.ensemble import random_members, reduce_members, slope_similarity


def test_reductions():
    values = jnp.asarray([[1.0, 5.0], [3.0, -1.0]])
    np.testing.assert_array_equal(reduce_members(values, "min"), [1.0, -1.0])
    np.testing.assert_array_equal(reduce_members(values, "mean"), [2.0, 2.0])


def test_random_members_are_different_ones_equally_often(key):
    stacked = {"a": jnp.arange(5), "b": jnp.arange(5) * 10}
    chosen = jax.vmap(lambda k: random_members(stacked, 2, key=k))(jax.random.split(key, 4000))
    np.testing.assert_array_equal(chosen["b"], 10 * chosen["a"])
    assert np.all(chosen["a"][:, 0] != chosen["a"][:, 1])
    counts = np.bincount(np.asarray(chosen["a"]).reshape(-1), minlength=5)
    np.testing.assert_allclose(counts / 8000, 0.2, atol=0.02)


def test_as_many_members_as_there_are_keep_their_order(key):
    np.testing.assert_array_equal(random_members(jnp.arange(5), 5, key=key), np.arange(5))


def test_similarity_pair_by_pair():
    slopes = np.random.default_rng(0).normal(size=(4, 3, 2))
    unit = slopes / np.linalg.norm(slopes, axis=-1, keepdims=True)
    pairs = np.einsum("ibk,jbk->bij", unit, unit)
    expected = (pairs.sum((1, 2)) - np.trace(pairs, axis1=1, axis2=2)) / 3
    found = slope_similarity(jnp.asarray(slopes, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_similarity_of_equal_and_of_opposite_slopes():
    same = jnp.ones((3, 1, 2))
    np.testing.assert_allclose(slope_similarity(same), [3.0], rtol=1e-5)
    opposite = jnp.asarray([[[2.0, 0.0]], [[-0.1, 0.0]]])
    np.testing.assert_allclose(slope_similarity(opposite), [-2.0], rtol=1e-5)


def test_flat_critics_have_no_direction_and_a_finite_gradient():
    slopes = jnp.asarray([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 2.0]]])
    value, gradient = jax.value_and_grad(lambda s: jnp.sum(slope_similarity(s)))(slopes)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[0], 0.0)


def test_a_single_critic_resembles_none():
    np.testing.assert_array_equal(slope_similarity(jnp.ones((1, 4, 2))), 0.0)
