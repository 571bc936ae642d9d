"""Clipped losses of values, and epochs of minibatches."""

import jax.numpy as jnp
import pytest

from headwater.core.errors import SpecificationError
from headwater.parts.clipped_policy import clipped_value_loss, minibatch_epochs


def test_values_are_held_near_where_they_were():
    value, old, target = (jnp.asarray([x]) for x in (1.0, 0.0, 2.0))
    # Beyond the range the error of the bound counts, which does not fall any further.
    assert float(clipped_value_loss(value, old, target, 0.2)[0]) == pytest.approx(0.5 * 1.8**2)
    assert float(clipped_value_loss(value, old, target, 5.0)[0]) == pytest.approx(0.5)


def test_minibatches_divide_the_rows(key):
    def step(total, rows):
        return total + jnp.sum(rows), {"largest": jnp.max(rows), "sampler_gap": total}

    rows = jnp.arange(6.0)
    total, metrics = minibatch_epochs(
        step, jnp.asarray(5.0), rows, num_epochs=4, num_minibatches=3, key=key
    )
    assert float(total) == 5 + 4 * 15 and float(metrics["sampler_gap"]) == 5.0
    with pytest.raises(SpecificationError, match="6 rows cannot be divided into 4 minibatches"):
        minibatch_epochs(step, jnp.asarray(0.0), rows, num_epochs=1, num_minibatches=4, key=key)
