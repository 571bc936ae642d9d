"""Tables in the place of a language model."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.networks.token_table import LogLinearResponses, PositionTable, PrefixTable


def test_every_text_has_a_row_of_its_own(key):
    network = PrefixTable(3, 3, key=key)
    rows = set()
    for length in (1, 2, 3):
        texts = jnp.asarray(list(itertools.product(range(3), repeat=length)), jnp.int32)
        rows |= set(np.asarray(network.rows(texts))[:, -1].tolist())
    assert rows == set(range(3 + 9 + 27)) and network.table.shape == (39, 3)


def test_logits_are_rows_and_linear_in_the_hidden_states(key):
    network = PrefixTable(3, 3, key=key)
    tokens = jax.random.randint(key, (2, 5, 3), 0, 3)
    logits = network.logits(tokens)
    assert logits.shape == (2, 5, 3, 3)
    np.testing.assert_allclose(network.hidden(tokens) @ network.table, logits, rtol=1e-6)
    # What comes later changes nothing.
    changed = network.logits(tokens.at[..., 2].set(0))
    np.testing.assert_array_equal(changed[..., :2, :], logits[..., :2, :])


def test_too_many_texts_are_refused():
    with pytest.raises(SpecificationError, match="a table of every text of 12 tokens out of 10"):
        PrefixTable(10, 12)


def test_a_table_of_positions_does_not_look_at_the_text(key):
    network = eqx.tree_at(lambda n: n.table, PositionTable(3, 4), jax.random.normal(key, (4, 3)))
    tokens = jax.random.randint(key, (2, 5, 3), 0, 3)
    expected = np.broadcast_to(np.asarray(network.table)[:3], (2, 5, 3, 3))
    np.testing.assert_array_equal(network.logits(tokens), expected)
    np.testing.assert_allclose(network.unembed(network.hidden(tokens)), expected, rtol=1e-6)


def test_log_linear_responses_share_their_weights():
    features = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    network = LogLinearResponses(features, jnp.asarray([0.5, -1.0]))
    logits = network.logits(jnp.zeros((4, 2), jnp.int32))
    np.testing.assert_allclose(logits[3, 0], [0.5, -1.0, -0.5])
    trained = network.trainable()
    assert trained.weights is True and trained.features is False
