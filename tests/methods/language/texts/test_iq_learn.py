"""Inverse RL for language against NumPy, SFT, and the reward that the χ² divergence implies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.texts.iq_learn import IQLearnLM
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES, learn
from ..text_twin import VOCABULARY, problem, some_texts, update


def _by_hand(table, data, end, method):
    """Loss and mean reward, one token at a time; `end` -1: the last token of a response ends it."""
    tokens, response = np.asarray(data.tokens), np.asarray(data.response)

    def row(text):
        index = sum(VOCABULARY**length for length in range(1, len(text)))
        return table[index + int("".join(map(str, text)), VOCABULARY)]

    losses, rewards = [], []
    for text, mask in zip(tokens, response):
        for t in np.nonzero(mask)[0]:
            logits = row(text[:t])
            value = np.log(np.exp(logits).sum())
            policy = np.exp(logits - value)
            over = text[t] == end if end >= 0 else not mask[t + 1 :].any()
            after = 0.0 if over else np.log(np.exp(row(text[: t + 1])).sum())
            reward = logits[text[t]] - method.discount * after
            entropy = -(policy * np.log(policy)).sum()
            rewards.append(reward)
            losses.append(
                value
                - logits[text[t]]
                + method.temporal_difference_weight * reward**2
                - method.entropy_weight * entropy
            )
    return np.mean(losses), np.mean(rewards)


@pytest.mark.parity
@pytest.mark.parametrize("end", [-1, 2])
def test_losses_of_tokens(end, key):
    network: Any = problem().network
    task, data = TokenProblem(network, end), some_texts(6)
    method = IQLearnLM(temporal_difference_weight=0.3, discount=0.9, entropy_weight=0.2)
    _, metrics = update(method, method.init(task, key=key), data, key)
    loss, reward = _by_hand(np.asarray(network.table, np.float64), data, end, method)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["reward"]) == pytest.approx(reward, rel=1e-5)


@pytest.mark.equivalence
def test_without_its_term_it_is_maximum_likelihood(key):
    task, data = problem(), some_texts(6)
    tables = []
    for method in (IQLearnLM(temporal_difference_weight=0.0, learning_rate=0.1), SFT(0.1)):
        state, _ = update(method, method.init(task, key=key), data, key)
        network: Any = method.network(state)
        tables.append(network.table)
    np.testing.assert_allclose(*tables, atol=1e-6)


@pytest.mark.oracle
def test_its_reward_is_that_of_the_chi_square_divergence(key):
    """At the minimum r = (1 - ρ_π/ρ)/(2λ): with ρ how frequent each beginning is."""
    weight = 0.2
    count = np.asarray([4, 1, 2, 1, 3, 1, 1, 2, 5])
    shown = np.repeat(np.arange(9), count)
    data = jax.tree.map(lambda x: x[0, shown], RESPONSES.data)
    method = IQLearnLM(
        temporal_difference_weight=weight,
        learning_rate=0.05,
        decay_updates=3000.0,
        max_gradient_norm=float("inf"),
    )
    task = TokenProblem(PrefixTable(3, 3, key=key))
    state, _ = learn(method, task, data, key=key, updates=3000)
    policy = np.exp(np.asarray(log_policy(method.network(state), RESPONSES)[0], np.float64))
    expert = count / count.sum()
    both = (policy / expert).reshape(3, 3)
    first = policy.reshape(3, 3).sum(1) / expert.reshape(3, 3).sum(1)
    texts = Completions(RESPONSES.data.tokens[0], RESPONSES.data.response[0])
    rewards = np.asarray(method.token_rewards(state, texts))
    assert np.all(rewards[:, 0] == 0.0)
    np.testing.assert_allclose(rewards[:, 1], np.repeat((1 - first) / (2 * weight), 3), atol=2e-3)
    np.testing.assert_allclose(rewards[:, 2], ((1 - both) / (2 * weight)).ravel(), atol=2e-3)
    # Not the trivial answer: the policy differs from the frequencies.
    assert np.abs(policy - expert).max() > 0.02


def test_what_was_cut_off_goes_on(key):
    """A response without its ending token has a value after it, and ending tokens have none."""
    network = PrefixTable(3, 3, key=key)
    method = IQLearnLM()
    data = Completions(jnp.asarray([[0, 1, 2], [0, 1, 1]]), jnp.asarray([[False, True, True]] * 2))
    state = method.init(TokenProblem(network, (2,)), key=key)
    found = np.asarray(method.token_rewards(state, data))
    logits = np.asarray(network.logits(data.tokens))
    value = np.log(np.exp(logits[1, 2]).sum())
    np.testing.assert_allclose(found[0, 2], logits[0, 1, 2], rtol=1e-5)
    np.testing.assert_allclose(found[1, 2], logits[1, 1, 1] - value, rtol=1e-5)
