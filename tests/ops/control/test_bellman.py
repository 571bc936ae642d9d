"""Backups and value losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.ops.control.bellman import backup, ensemble_error


def test_backup_by_hand():
    reward, following = jnp.asarray([1.0, 1.0, -2.0]), jnp.asarray([10.0, 10.0, 5.0])
    terminal = jnp.asarray([False, True, False])
    np.testing.assert_allclose(backup(reward, 0.9, terminal, following), [10.0, 1.0, 2.5])


def test_nothing_behind_a_terminal_step_counts_nor_has_a_slope():
    def target(following):
        return backup(jnp.zeros(2), 0.9, jnp.asarray([True, False]), following).sum()

    assert float(target(jnp.asarray([jnp.nan, 2.0]))) == np.float32(1.8)
    np.testing.assert_allclose(jax.grad(target)(jnp.asarray([jnp.inf, 2.0])), [0.0, 0.9])


def test_ensemble_error_sums_members_and_averages_rows():
    predictions = jnp.asarray([[1.0, 2.0], [3.0, 5.0]])
    # Members: mean(1, 1) and mean(1, 4).
    assert float(ensemble_error(predictions, jnp.asarray([2.0, 3.0]))) == 1.0 + 2.5
