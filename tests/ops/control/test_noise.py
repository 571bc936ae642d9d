"""Noise drawn in one row."""

import jax
import numpy as np
import pytest

from headwater.ops.control.noise import normal, uniform


@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 5, 6)])
def test_numbers_are_those_of_jax(shape):
    key = jax.random.key(3)
    np.testing.assert_array_equal(normal(key, shape), jax.random.normal(key, shape))
    np.testing.assert_array_equal(
        uniform(key, shape, low=-2.0, high=0.5),
        jax.random.uniform(key, shape, minval=-2, maxval=0.5),
    )


def test_a_batch_of_keys_draws_what_each_draws():
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(lambda key: normal(key, (4, 2)))(keys)
    np.testing.assert_array_equal(together, [normal(key, (4, 2)) for key in keys])
