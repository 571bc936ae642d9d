"""Reward models against NumPy, and on rewards that are known."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import CompletionComparisons
from headwater.core.tokens import TokenProblem
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.networks.token_table import PrefixTable

from ..exact_texts import bradley_terry_comparisons, learn, responses
from ..text_twin import (
    CONTEXT,
    DATA,
    ROWS,
    VOCABULARY,
    length,
    log_sigmoid,
)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["logistic", "linear", "log", "inverse"])
@pytest.mark.parametrize("bounded", [False, True])
def test_a_reward_model_reads_the_state_after_the_last_token(kind, bounded, key):
    method = RewardModel(open_utility=kind, bounded=bounded, centring_weight=0.2)
    table = PrefixTable(VOCABULARY, CONTEXT, key=key)
    state: Any = method.init(TokenProblem(table), key=key)
    weights = jax.random.normal(key, state.network.weights.shape)
    state = eqx.tree_at(lambda s: s.network.weights, state, weights)
    open_ended = np.arange(ROWS) % 2 == 0
    data = CompletionComparisons(DATA.chosen, DATA.rejected, jnp.asarray(open_ended))

    def rate(texts):
        rows = np.asarray(table.rows(texts.tokens))
        # Responses follow a prompt of one token.
        read = np.asarray(weights, np.float64)[rows[np.arange(ROWS), length(texts)]]
        return 1 / (1 + np.exp(-read)) if bounded else read

    utilities = {
        "logistic": log_sigmoid,
        "linear": lambda x: x,
        "log": lambda x: np.where(
            x > 0.01, np.log(np.maximum(x, 0.01)), np.log(0.01) + 100 * x - 1
        ),
        "inverse": lambda x: np.where(
            x > 0.01, -1 / np.maximum(x, 0.01), -100 + 10_000 * (x - 0.01)
        ),
    }
    margin = rate(DATA.chosen) - rate(DATA.rejected)
    assert np.abs(margin - 0.01).min() > 1e-4
    worth = np.where(open_ended, utilities[kind](margin), log_sigmoid(margin))
    _, metrics = method.update(state, data, key=key)
    assert float(metrics["loss"]) == pytest.approx(-worth.mean(), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((margin > 0).mean())
    np.testing.assert_allclose(method.rate(state, DATA.chosen), rate(DATA.chosen), rtol=1e-5)


@pytest.mark.oracle
def test_a_reward_model_finds_bradley_and_terrys_rewards(key):
    """A table's last states are all different, so that any reward can be fitted."""
    worth = np.asarray([0, 1, 2, 2, 1, 0, 0, 1, 2])
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = RewardModel(learning_rate=0.05, decay_updates=300.0, centring_weight=1e-4)
    state, _ = learn(method, task, bradley_terry_comparisons(worth), key=key, updates=300)
    rewards = np.asarray(method.rate(state, responses(np.arange(9))))
    expected = (worth - worth.mean()) * np.log(2.0)
    assert rewards - rewards.mean() == pytest.approx(expected, abs=5e-3)
    assert abs(rewards.mean()) < 0.01
