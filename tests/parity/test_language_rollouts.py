"""Losses on texts against plain NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem, position_mask
from headwater.methods.language.grpo import GRPO
from headwater.methods.language.rloo import RLOO
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


def clipped(ratio, advantage, below, above):
    """PPO's loss, one number at a time."""
    found = np.zeros(ratio.shape)
    for place in np.ndindex(*ratio.shape):
        r, a = ratio[place], advantage[place]
        bounded = min(max(r, 1.0 - below), 1.0 + above)
        found[place] = -min(r * a, bounded * a)
    return found


@pytest.mark.parametrize("average", ["token", "sequence", "constant"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_grpo_loss(average, scale, ratio, key):
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    method = GRPO(
        divergence_weight=0.3,
        clip_range=0.1,
        upper_clip_range=0.3,
        average=average,
        scale_rewards=scale,
        ratio=ratio,
        response_length=7,
    )
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = method.update(state, data, key=key)

    own, reference = log_probabilities(task.network, data), log_probabilities(other, data)
    mask, reward = np.asarray(data.response), np.asarray(data.reward, np.float64)
    advantage = reward - reward.mean(axis=1, keepdims=True)
    if scale == "group":
        advantage = advantage / (reward.std(axis=1, keepdims=True, ddof=1) + 1e-4)
    if scale == "batch":
        advantage = advantage / (reward.std(ddof=1) + 1e-4)
    change = (own - np.asarray(data.log_probability)) * mask
    if ratio == "sequence":
        change = change.sum(-1, keepdims=True) / mask.sum(-1, keepdims=True) * np.ones(mask.shape)
    loss = clipped(np.exp(change), advantage[..., None] * np.ones(mask.shape), 0.1, 0.3)
    loss = (loss + 0.3 * (np.exp(reference - own) - (reference - own) - 1.0)) * mask
    if average == "token":
        value = loss.sum() / mask.sum()
    elif average == "sequence":
        value = (loss.sum(-1) / mask.sum(-1)).mean()
    else:
        value = loss.sum(-1).mean() / 7
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("normalised", [True, False])
def test_rloo_loss(normalised, key):
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    # Close to the policy, so that not all ratios are clipped.
    own = log_probabilities(task.network, data)
    old = own + 0.1 * np.asarray(data.log_probability)
    data = eqx.tree_at(lambda d: d.log_probability, data, jnp.asarray(old, jnp.float32))
    method = RLOO(divergence_weight=0.3, clip_range=0.1, normalise_advantages=normalised)
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = method.update(state, data, key=key)

    before, after = old.sum(-1), own.sum(-1)
    price = before - log_probabilities(other, data).sum(-1)
    reward = np.asarray(data.reward, np.float64) - 0.3 * price
    advantage = np.zeros(reward.shape)
    for prompt, sample in np.ndindex(3, 4):
        others = np.delete(reward[prompt], sample)
        advantage[prompt, sample] = reward[prompt, sample] - others.mean()
    if normalised:
        advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-4)
    loss = clipped(np.exp(after - before), advantage, 0.1, 0.2).mean()
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    assert float(metrics["divergence"]) == pytest.approx(price.mean(), rel=1e-4)
    gap = np.abs(own - old).sum() / np.asarray(data.response).sum()
    assert float(metrics["sampler_gap"]) == pytest.approx(gap, rel=1e-3)


def test_epochs_stop_at_the_clip(key):
    """Many large steps on one batch: ratios leave the range and then nothing more is gained."""
    task, data = problem(), some_texts(3, 4)
    data = eqx.tree_at(lambda d: d.log_probability, data, None)
    method = GRPO(epochs=1, learning_rate=0.3)
    _, once = method.update(method.init(task, key=key), data, key=key)
    many = GRPO(epochs=8, learning_rate=0.3)
    _, often = many.update(many.init(task, key=key), data, key=key)
    assert float(once["clipped"]) == 0.0 and float(often["clipped"]) > 0.1
    assert float(once["sampler_gap"]) == float(often["sampler_gap"]) < 1e-6
