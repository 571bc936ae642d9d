"""Roll-outs against values that are known exactly, and what they are not to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, Prompts
from headwater.decoding.emulated_fine_tuning import Combined
from headwater.decoding.transfer_q import (
    RolloutValues,
    controlled_decoding,
    guided,
    reward_guided_search,
    transfer_q,
)
from headwater.environments.language.token_process import TableReward, every_response
from headwater.evaluation.exact_tokens import action_values, log_policy
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import token_log_probabilities

VOCABULARY, LENGTH = 3, 3
RESPONSES = every_response(VOCABULARY, LENGTH)
PROMPTS = Prompts(jnp.zeros((12, 1), jnp.int32), jnp.ones(12, jnp.int32))


def _problem(seed: int):
    keys = jax.random.split(jax.random.key(seed), 3)
    network, aligned = (PrefixTable(VOCABULARY, 1 + LENGTH, key=key) for key in keys[:2])
    values = jax.random.normal(keys[2], (1, VOCABULARY**LENGTH))
    return network, aligned, values, TableReward(values, VOCABULARY)


def _certain(network):
    """The same table, always writing what was likeliest."""
    best = network.table == jnp.max(network.table, axis=-1, keepdims=True)
    return eqx.tree_at(lambda n: n.table, network, jnp.where(best, 0.0, -1e9))


class EndReward(AbstractCompletionReward):
    """How many tokens the response has."""

    def __call__(self, data: Completions):
        return jnp.sum(data.response, axis=-1).astype(jnp.float32)


@pytest.mark.parametrize("sure", ["greedy", "certain"])
def test_one_roll_out_of_a_policy_that_is_sure_gives_exact_values(sure, key):
    network, aligned, values, reward = _problem(0)
    policy = aligned if sure == "greedy" else _certain(aligned)
    judged = transfer_q(policy, reward, new_tokens=LENGTH, greedy=sure == "greedy")
    written = jax.jit(
        lambda: guided(network, judged, PROMPTS, LENGTH, key=key, weight=0.7, top_k=VOCABULARY)
    )()
    exact = action_values(_certain(aligned), RESPONSES, values)
    expected = token_log_probabilities(Combined([network, exact], jnp.asarray([1.0, 0.7])), written)
    np.testing.assert_allclose(written.log_probability, expected, atol=1e-5)
    assert len({tuple(text) for text in np.asarray(written.tokens)}) > 3


def test_many_roll_outs_come_near_exact_values(key):
    network, _, values, reward = _problem(1)
    judged = controlled_decoding(network, reward, new_tokens=LENGTH, samples=4000)
    prompts = jax.tree.map(lambda x: x[:1], PROMPTS)
    candidates = jnp.asarray([[0, token, 0, 0] for token in range(VOCABULARY)])
    texts = Prompts(candidates, jnp.full(VOCABULARY, 2))
    start = jnp.ones(VOCABULARY, jnp.int32)
    found = jax.jit(lambda: judged(texts, start, -1, key=key))()
    exact = action_values(network, RESPONSES, values).logits(prompts.tokens)[0, 0]
    np.testing.assert_allclose(found, exact, atol=0.06)


def test_weights_turn_a_policy_of_another_reward_into_one_of_this_reward(key):
    """The policy reference · exp(other / T) weighted by exp((reward - other) / T)."""
    network, _, values, reward = _problem(2)
    other = jax.random.normal(key, values.shape)
    temperature = 0.7
    reference = log_policy(network, RESPONSES)

    def aligned(values):
        return _network(jax.nn.log_softmax(reference + values / temperature, axis=-1))

    judged = transfer_q(
        aligned(other),
        reward,
        baseline_reward=TableReward(other, VOCABULARY),
        baseline_temperature=temperature,
        new_tokens=LENGTH,
        samples=20_000,
    )
    texts = Prompts(jnp.asarray([[0, token, 0, 0] for token in range(VOCABULARY)]), jnp.full(3, 2))
    found = jax.jit(lambda: judged(texts, jnp.ones(3, jnp.int32), -1, key=key))()
    exact = action_values(aligned(values), RESPONSES, values).logits(jnp.zeros((1, 1), jnp.int32))
    np.testing.assert_allclose(found, exact[0, 0], atol=0.06)


def _network(policy):
    """A table that writes responses with these log-probabilities, one sum after the other."""
    table = np.zeros((VOCABULARY, VOCABULARY, VOCABULARY))
    table[...] = np.exp(np.asarray(policy[0], np.float64)).reshape(table.shape)
    network = PrefixTable(VOCABULARY, 1 + LENGTH)
    logits = np.asarray(network.table).copy()
    tokens = RESPONSES.data.tokens[0]
    rows = np.asarray(network.rows(tokens))
    for text, row in zip(np.asarray(tokens), rows):
        a, b, c = text[1:]
        logits[row[0], a] = np.log(table[a].sum())
        logits[row[1], b] = np.log(table[a, b].sum())
        logits[row[2], c] = np.log(table[a, b, c])
    return eqx.tree_at(lambda n: n.table, network, jnp.asarray(logits, jnp.float32))


def test_texts_are_judged_up_to_their_end(key):
    """Roll-outs that went on after an ending token would earn more, and be chosen."""
    network = PrefixTable(VOCABULARY, 1 + LENGTH)
    judged = transfer_q(_certain(network), EndReward(), new_tokens=LENGTH)
    texts = Prompts(jnp.asarray([[0, 1, 0, 0], [0, 2, 0, 0], [0, 1, 1, 2]]), jnp.asarray([2, 2, 4]))
    # Token 0 is among the likeliest, and goes on; 2 ends.
    first = eqx.tree_at(lambda v: v.policy.table, judged, network.table.at[:, 0].set(9.0))
    found = first(texts, jnp.ones(3, jnp.int32), (2,), key=key)
    np.testing.assert_array_equal(found, [3.0, 1.0, 3.0])
    written = guided(
        network, first, PROMPTS, LENGTH, key=key, weight=50.0, top_k=VOCABULARY, end=2, greedy=True
    )
    assert not np.any(np.asarray(written.tokens)[:, 1:-1] == 2)
    hasty = guided(
        network, first, PROMPTS, LENGTH, key=key, weight=-50.0, top_k=VOCABULARY, end=2, greedy=True
    )
    np.testing.assert_array_equal(np.asarray(hasty.response).sum(1), 1)
    np.testing.assert_array_equal(np.asarray(hasty.tokens)[:, 1], 2)


def test_without_roll_outs_the_text_so_far_is_judged(key):
    network = PrefixTable(VOCABULARY, 1 + LENGTH)
    judged = reward_guided_search(network, EndReward())
    texts = Prompts(jnp.asarray([[0, 1, 0, 0], [0, 1, 1, 0]]), jnp.asarray([2, 3]))
    found = judged(texts, jnp.ones(2, jnp.int32), -1, key=key)
    np.testing.assert_array_equal(found, [1.0, 2.0])


def test_only_the_likeliest_tokens_are_candidates(key):
    network, aligned, _, reward = _problem(3)
    judged = transfer_q(aligned, reward, new_tokens=LENGTH)
    written = guided(network, judged, PROMPTS, LENGTH, key=key, weight=9.0, top_k=1)
    certain = guided(network, judged, PROMPTS, LENGTH, key=key, weight=0.0, top_k=3, greedy=True)
    np.testing.assert_array_equal(written.tokens, certain.tokens)
    assert written.log_probability is not None
    np.testing.assert_allclose(written.log_probability, 0.0, atol=1e-6)


def test_what_does_not_fit_is_refused(key):
    network, aligned, _, reward = _problem(4)
    judged = transfer_q(aligned, reward)
    with pytest.raises(SpecificationError, match="4 new ones do not fit into a context of 4"):
        guided(network, judged, PROMPTS, 4, key=key, top_k=2)
    with pytest.raises(SpecificationError, match="top_k = 10 must be between 1 and the 3 tokens"):
        guided(network, judged, PROMPTS, LENGTH, key=key)
    with pytest.raises(SpecificationError, match="take 2 samples or more"):
        RolloutValues(aligned, reward, baseline_reward=reward)
    with pytest.raises(SpecificationError, match="not -1 and 1"):
        RolloutValues(aligned, reward, new_tokens=-1)
