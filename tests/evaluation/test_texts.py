"""Held-out texts that are looked at some rows at a time."""

import jax.numpy as jnp
import numpy as np

from headwater.core.records import Completions
from headwater.evaluation.texts import by_rows


def _sum_and_width(_, data: Completions):
    total = jnp.sum(jnp.where(data.response, data.tokens, 0), axis=-1)
    return total, jnp.full(total.shape, data.tokens.shape[-1])


def test_texts_are_looked_at_without_the_padding_of_longer_ones_and_come_back_in_order():
    random = np.random.default_rng(0)
    tokens = random.integers(0, 100, (150, 64)).astype(np.int32)
    length = random.permutation([5] * 130 + [40] * 20)
    response = np.arange(64) < length[:, None]
    data = Completions(jnp.asarray(tokens), jnp.asarray(response))
    total, width = by_rows(_sum_and_width, None, data, unpadded=True)
    np.testing.assert_array_equal(total, np.where(response, tokens, 0).sum(axis=-1))
    # 64 rows at a time, the shortest first: two parts of short texts, and one of both kinds.
    assert sorted(width) == [16] * 128 + [64] * 22
    total, width = by_rows(_sum_and_width, None, data)
    np.testing.assert_array_equal(total, np.where(response, tokens, 0).sum(axis=-1))
    assert set(width) == {64}
