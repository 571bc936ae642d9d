"""Objectives of policy improvement, against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.ops.control.bellman import double_value
from headwater.ops.control.improvement import unit_scale


def test_values_are_divided_by_their_mean_size():
    np.testing.assert_allclose(unit_scale(jnp.asarray([2.0, -4.0])), [2 / 3, -4 / 3], rtol=1e-6)


def test_the_size_counts_as_a_constant_in_the_gradient():
    # Differentiated through, the mean of positive values over itself would have no slope at all.
    slope = jax.grad(lambda q: jnp.mean(unit_scale(q)))(jnp.asarray([2.0, 4.0]))
    np.testing.assert_allclose(slope, [1 / 6, 1 / 6], rtol=1e-6)


def test_values_of_zero_stay_zero_with_a_finite_slope():
    zeros = jnp.zeros(3)
    np.testing.assert_array_equal(unit_scale(zeros), zeros)
    assert np.all(np.isfinite(jax.grad(lambda q: jnp.sum(unit_scale(q)))(zeros)))


def test_one_network_chooses_and_the_other_judges():
    choosing = jnp.asarray([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    judging = jnp.asarray([[10.0, 20.0, 30.0], [-1.0, 7.0, 8.0]])
    np.testing.assert_array_equal(double_value(choosing, judging), [20.0, -1.0])
    np.testing.assert_array_equal(double_value(judging, judging), [30.0, 8.0])
