"""The classifier of responses against NumPy, and on frequencies that are known."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions, LabelledCompletions
from headwater.core.tokens import TokenProblem, position_mask
from headwater.methods.language.comparisons.response_classifier import ResponseClassifier
from headwater.networks.token_table import PrefixTable

from ..exact_texts import learn
from ..text_twin import CONTEXT, ROWS, VOCABULARY, given_prompts, length, log_sigmoid, some_texts


@pytest.mark.parity
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
def test_log_odds_are_read_after_the_last_token_with_the_prompt_or_without(alone, bounded, key):
    method = ResponseClassifier(response_alone=alone, bounded=bounded)
    table = PrefixTable(VOCABULARY, CONTEXT, key=key)
    state: Any = method.init(TokenProblem(table), key=key)
    weights = jax.random.normal(key, state.network.weights.shape)
    state = eqx.tree_at(lambda s: s.network.weights, state, weights)
    texts, desirable = some_texts(ROWS), np.arange(ROWS) % 3 > 0
    # Prompts are one token.
    read = np.asarray(texts.tokens)
    read = np.concatenate([read[:, 1:], read[:, :1]], axis=1) if alone else read
    rows = np.asarray(table.rows(jnp.asarray(read)))
    last = length(texts) - 1 if alone else length(texts)
    odds = np.asarray(weights, np.float64)[rows[np.arange(ROWS), last]]
    _, metrics = method.update(state, LabelledCompletions(texts, jnp.asarray(desirable)), key=key)
    margin = np.where(desirable, odds, -odds)
    assert float(metrics["loss"]) == pytest.approx(-log_sigmoid(margin).mean(), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((margin > 0).mean())
    expected = 2 / (1 + np.exp(-odds)) - 1 if bounded else odds
    np.testing.assert_allclose(method.rate(state, texts), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.oracle
def test_rewards_are_the_frequencies_of_labels_whatever_the_prompt(key):
    """Of three responses one is desirable in one of four rows, one in two, one in three."""
    share = np.asarray([0.25, 0.5, 0.75])
    token = np.repeat(np.arange(3), 4)
    tokens = np.stack([np.arange(12) % 3, token, np.zeros(12, int)], axis=1)
    start = jnp.ones(12, jnp.int32)
    texts = Completions(jnp.asarray(tokens, jnp.int32), position_mask(start, start + 1, 3))
    desirable = np.tile(np.arange(4), 3) < 4 * share[token]
    data = LabelledCompletions(texts, jnp.asarray(desirable))
    method = ResponseClassifier(learning_rate=0.1, decay_updates=400.0)
    task = TokenProblem(PrefixTable(3, 3, key=key))
    state, _ = learn(method, task, data, key=key, updates=400)
    asked = given_prompts(texts, jnp.asarray(1 - np.arange(12) % 2, jnp.int32))
    rewards = np.asarray(method.rate(state, asked))
    assert rewards == pytest.approx((2 * share - 1)[token], abs=1e-2)
