"""Losses by hand and by their minimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from headwater.ops.control.regression import expectile_error, exponential_weight, huber


def test_expectile_error_by_hand():
    error = expectile_error(jnp.asarray([2.0, -2.0, 0.0]), 0.7)
    np.testing.assert_allclose(error, [0.7 * 4, 0.3 * 4, 0.0], rtol=1e-6)


@pytest.mark.parametrize("level", (0.1, 0.5, 0.9))
def test_its_minimiser_is_the_expectile(level):
    values = np.random.default_rng(0).normal(size=200)

    def loss(m):
        return float(jnp.mean(expectile_error(jnp.asarray(values - m, jnp.float32), level)))

    found = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x
    assert abs(found - stats.expectile(values, level)) < 2e-3


def test_exponential_weight_is_bounded_without_overflow():
    weight = exponential_weight(jnp.asarray([0.0, 1.0, 1e9, -1e9]), 3.0, 100.0)
    np.testing.assert_allclose(weight, [1.0, np.exp(3.0), 100.0, 0.0], rtol=1e-5)
    slope = jax.grad(lambda a: exponential_weight(a, 3.0, 100.0))(jnp.asarray(1e9))
    assert np.isfinite(slope)


def test_huber_is_quadratic_then_linear():
    found = huber(jnp.asarray([0.5, -1.0, 3.0, -3.0]), 1.0)
    np.testing.assert_allclose(found, [0.125, 0.5, 2.5, 2.5])
    slopes = jax.vmap(jax.grad(lambda x: huber(x, 2.0)))(jnp.asarray([1.5, 5.0, -5.0]))
    np.testing.assert_allclose(slopes, [1.5, 2.0, -2.0])
