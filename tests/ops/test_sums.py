"""Sums in single precision against sums in double precision."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.ops.sums import CompensatedSum, add_all, add_to, no_sum


def test_small_numbers_still_add_up_where_single_precision_stands_still():
    """At 2^24, adding 0.5 changes nothing: a thousand of them are lost, one by one."""
    start = CompensatedSum(jnp.full((2, 3), 2.0**24), jnp.zeros((2, 3)))
    at = jnp.arange(2), jnp.asarray([1, 2])

    @jax.jit
    def one_by_one(sums):
        return jax.lax.fori_loop(0, 1000, lambda _, s: add_to(s, at, jnp.full(2, 0.5)), sums)

    plain = jax.lax.fori_loop(0, 1000, lambda _, x: x + 0.5, jnp.float32(2.0**24))
    assert plain == 2.0**24
    found = one_by_one(start)
    wanted = np.full((2, 3), 2.0**24)
    wanted[0, 1] = wanted[1, 2] = 2.0**24 + 500.0
    np.testing.assert_array_equal(found.total, wanted)
    np.testing.assert_array_equal(add_all(found, jnp.full((2, 3), 2.0)).total, wanted + 2.0)


def test_a_large_batch_adds_up_like_its_rows():
    """Cells that rows share, blocks that are not full, and axes of the values of their own."""
    random = np.random.default_rng(0)
    rows = 13 * 64 + 17
    at = np.broadcast_to(np.arange(2), (rows, 2)), random.integers(0, 3, (rows, 2))
    values = random.random((rows, 2, 2)).astype(np.float32)
    wanted = np.zeros((2, 3, 2))
    np.add.at(wanted, at, values)
    index = jnp.asarray(at[0]), jnp.asarray(at[1])
    found = jax.jit(add_to)(no_sum((2, 3, 2)), index, jnp.asarray(values))
    np.testing.assert_allclose(found.total, wanted, rtol=2e-6)


def test_a_log_of_one_reward_averages_to_it():
    """Two million times 0.1 in one batch: one after the other they average 0.1003."""
    rows = 2_000_000
    at = jnp.zeros((rows, 1), jnp.int32), jnp.zeros((rows, 1), jnp.int32)
    found = jax.jit(add_to)(no_sum((1, 1)), at, jnp.full((rows, 1), 0.1))
    np.testing.assert_allclose(found.total[0, 0] / rows, 0.1, rtol=1e-6)
