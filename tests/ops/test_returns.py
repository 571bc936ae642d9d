"""Returns against a double loop."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.ops.returns import discounted_returns_to_go


def _by_hand(reward, last, discount):
    totals = []
    for i in range(len(reward)):
        total, weight = 0.0, 1.0
        for j in range(i, len(reward)):
            total += weight * reward[j]
            weight *= discount
            if last[j]:
                break
        totals.append(total)
    return totals


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), discount=st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_returns_to_go(seed, discount):
    random = np.random.default_rng(seed)
    reward, last = random.normal(size=12), random.random(12) < 0.3
    found = discounted_returns_to_go(jnp.asarray(reward, jnp.float32), jnp.asarray(last), discount)
    np.testing.assert_allclose(found, _by_hand(reward, last, discount), rtol=1e-4, atol=1e-5)


def test_a_known_sum():
    found = discounted_returns_to_go(jnp.ones(4), jnp.asarray([False, False, False, True]), 0.5)
    assert found.tolist() == [1.875, 1.75, 1.5, 1.0]


@pytest.mark.parametrize("bad", (jnp.nan, jnp.inf))
def test_one_episode_cannot_spoil_another(bad):
    last = jnp.asarray([False, True, False, True])
    found = discounted_returns_to_go(jnp.asarray([1.0, 2.0, bad, 1.0]), last, 0.5)
    assert found[:2].tolist() == [2.0, 2.0] and float(found[3]) == 1.0
