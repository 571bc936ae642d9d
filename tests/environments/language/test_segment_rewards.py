"""Rewards of stretches of texts, counted by hand, and what does not fit."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.environments.language.segment_rewards import SegmentPattern, WeightedParts


def _texts() -> Completions:
    tokens = jnp.asarray([[9, 1, 2, 3, 4, 5, 6], [9, 1, 2, 0, 0, 0, 6], [9, 0, 0, 3, 4, 5, 6]])
    return Completions(tokens, jnp.ones(tokens.shape, bool).at[:, 0].set(False))


def test_stretches_with_more_right_than_wrong_tokens_earn():
    reward = SegmentPattern(jnp.asarray([1, 2, 3, 4, 5, 6]), 0.5)
    expected = np.zeros((3, 7))
    expected[:, 3], expected[:, 6] = [0.5, 0.5, -0.5], [0.5, -0.5, 0.5]
    np.testing.assert_array_equal(reward(_texts()), expected)


def test_judges_are_added_up_by_their_weights():
    first = SegmentPattern(jnp.asarray([1, 2, 3, 4, 5, 6]), 0.5)
    second = SegmentPattern(jnp.asarray([0, 0, 0, 4, 5, 6]), 1.0, size=6)
    both = WeightedParts((first, second), jnp.asarray([2.0, 3.0]))
    expected = 2.0 * first(_texts()) + 3.0 * second(_texts())
    np.testing.assert_allclose(both(_texts()), expected)
    # Of the second judge's one stretch, three of six are not most of it in the second text.
    np.testing.assert_array_equal(both(_texts())[:, 6], [-2.0, -4.0, 4.0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(SpecificationError, match="pattern of 7 tokens cannot be divided"):
        SegmentPattern(jnp.arange(7))
    judge = SegmentPattern(jnp.arange(6))
    with pytest.raises(SpecificationError, match="1 judges need a weight each"):
        WeightedParts((judge,), jnp.ones(2))
