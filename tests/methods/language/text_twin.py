"""Texts with a few tokens, their probabilities and clipped losses in plain NumPy."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import TokenProblem, position_mask
from headwater.methods.language.rewards.inpo import NashTuned
from headwater.networks.token_table import PrefixTable

VOCABULARY, CONTEXT, ROWS = 3, 4, 6


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


def some_pairs(*shape: int, seed=0) -> CompletionComparisons:
    """Random texts, two after the same prompt."""
    chosen, rejected = some_texts(*shape, seed=seed), some_texts(*shape, seed=seed + 100)
    same = rejected.tokens.at[..., 0].set(chosen.tokens[..., 0])
    return CompletionComparisons(chosen, dataclasses.replace(rejected, tokens=same))


def given_prompts(data: Completions, first) -> Completions:
    """The same texts after the prompts `first`."""
    return dataclasses.replace(data, tokens=data.tokens.at[..., 0].set(first))


def log_probabilities(network: Any, data: Completions) -> np.ndarray:
    """Of every token of the responses, looked up one by one."""
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


def response_log_probability(network: Any, data: Completions) -> np.ndarray:
    """Of whole responses."""
    return log_probabilities(network, data).sum(axis=-1)


def length(data: Completions) -> np.ndarray:
    return np.asarray(data.response).sum(axis=-1)


def ratios(network, reference, data):
    return response_log_probability(network, data) - response_log_probability(reference, data)


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def update(method, state, data, key):
    """One update, compiled."""
    return jax.jit(lambda: method.update(state, data, key=key))()


def clipped(ratio, advantage, below, above):
    """PPO's loss, one number at a time."""
    found = np.zeros(ratio.shape)
    for place in np.ndindex(*ratio.shape):
        r, a = ratio[place], advantage[place]
        bounded = min(max(r, 1.0 - below), 1.0 + above)
        found[place] = -min(r * a, bounded * a)
    return found


def moved(method, seed=0) -> tuple[Any, PrefixTable, Any]:
    """A problem and a state of `method` whose policy is another than the reference."""
    task = TokenProblem(PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(seed)))
    state = method.init(task, key=jax.random.key(1))
    other = PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(seed + 1))
    return task, other, replaced(state, other)


def replaced(state, network):
    if isinstance(state, NashTuned):
        return eqx.tree_at(lambda s: s.tuned.network, state, network)
    return eqx.tree_at(lambda s: s.network, state, network)


def slopes(loss, table):
    """By central differences."""
    table = np.asarray(table, np.float64)
    found = np.zeros_like(table)
    for place in np.ndindex(table.shape):
        step = np.zeros_like(table)
        step[place] = 1e-4
        found[place] = (loss(table + step) - loss(table - step)) / 2e-4
    return found


def first_gradient(state) -> np.ndarray:
    """Of the loss of the first update, read off Adam's first moment: a tenth of it."""
    return 10.0 * np.asarray(optax.tree.get(state.optimiser, "mu").table)


DATA = some_pairs(ROWS)
