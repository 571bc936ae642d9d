"""Losses on texts against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem, position_mask
from headwater.methods.language.sft import SFT
from headwater.networks.token_table import PrefixTable

VOCABULARY, CONTEXT = 3, 4


def problem(seed=0) -> TokenProblem:
    return TokenProblem(PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(seed)))


def some_texts(*shape: int, seed=0) -> Completions:
    """Random texts with responses of one to three tokens after prompts of one."""
    keys = jax.random.split(jax.random.key(seed), 4)
    tokens = jax.random.randint(keys[0], (*shape, CONTEXT), 0, VOCABULARY, jnp.int32)
    length = jax.random.randint(keys[1], shape, 1, CONTEXT, jnp.int32)
    response = position_mask(jnp.ones_like(length), 1 + length, CONTEXT)
    chance = jnp.where(response, -jax.random.exponential(keys[2], (*shape, CONTEXT)), 0.0)
    return Completions(tokens, response, jax.random.normal(keys[3], shape), chance)


def log_probabilities(network: AbstractTokenNetwork, data: Completions) -> np.ndarray:
    """Of every token of the responses, looked up one by one."""
    assert isinstance(network, PrefixTable)
    table = np.asarray(network.table, np.float64)
    tokens, response = np.asarray(data.tokens), np.asarray(data.response)
    found = np.zeros(tokens.shape)
    for place in zip(*np.nonzero(response)):
        *row, position = place
        text = tokens[tuple(row)][:position]
        index = sum(VOCABULARY**length for length in range(1, position))
        index += int("".join(map(str, text)), VOCABULARY)
        logits = table[index]
        found[place] = logits[tokens[place]] - np.log(np.exp(logits).sum())
    return found


def test_sft_averages_over_the_tokens_of_responses(key):
    task, data = problem(), some_texts(6)
    method = SFT()
    _, metrics = method.update(method.init(task, key=key), data, key=key)
    own = log_probabilities(task.network, data)
    tokens = np.asarray(data.response).sum()
    assert float(metrics["loss"]) == pytest.approx(-own.sum() / tokens, rel=1e-5)
    assert float(metrics["tokens"]) == tokens
