"""Batches of texts: stored, written, and begun as stored ones do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, Prompts, TokenProblem, position_mask
from headwater.environments.language.token_process import TableReward, every_response
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import token_log_probabilities
from headwater.sources.language.completions import (
    CompletionReplay,
    SampledCompletions,
    WeightedRewards,
)
from headwater.sources.language.resets import Resets


class Length(AbstractCompletionReward):
    """Tokens in the response."""

    def __call__(self, data):
        return jnp.sum(data.response, axis=-1).astype(jnp.float32)


def agent_of(network) -> Agent:
    method = SFT()
    return Agent(method, method.init(TokenProblem(network), key=jax.random.key(0)))


def draw(source, agent, key):
    """The first draw, and the state after it."""

    def run():
        return source.draw(source.init(key=key), agent, key=key)

    return eqx.filter_jit(run)()


NETWORK = PrefixTable(3, 5, key=jax.random.key(1))
STORED = Completions(
    # Prompts of one and two tokens; responses of one to four.
    jnp.asarray([[0, 1, 2, 0, 0], [1, 1, 2, 2, 1], [2, 0, 1, 0, 0], [2, 2, 0, 0, 0]], jnp.int32),
    position_mask(jnp.asarray([1, 1, 2, 1]), jnp.asarray([3, 5, 4, 2]), 5),
)


def test_stored_rows_are_drawn_uniformly(key):
    data = Completions(
        jnp.arange(12, dtype=jnp.int32).reshape(4, 3), jnp.ones((4, 3), bool), jnp.arange(4.0)
    )
    _, batch = draw(CompletionReplay(data, rows=4000), agent_of(NETWORK), key)
    assert isinstance(batch, Completions) and batch.reward is not None
    np.testing.assert_array_equal(batch.tokens[:, 0], 3 * batch.reward)
    counts = np.bincount(np.asarray(batch.reward).astype(int), minlength=4)
    np.testing.assert_allclose(counts, 1000, atol=120)


def test_stored_rows_are_drawn_in_proportion_to_weights(key):
    data = Completions(jnp.zeros((3, 2), jnp.int32), jnp.ones((3, 2), bool), jnp.arange(3.0))
    _, batch = draw(
        CompletionReplay(data, 4000, jnp.asarray([0.0, 1.0, 3.0])), agent_of(NETWORK), key
    )
    assert isinstance(batch, Completions) and batch.reward is not None
    counts = np.bincount(np.asarray(batch.reward).astype(int), minlength=3)
    assert counts[0] == 0 and abs(counts[1] - 1000) < 120


def test_stored_rows_may_be_taken_as_they_are(key):
    _, batch = draw(CompletionReplay(STORED, rows=None), agent_of(NETWORK), key)
    assert isinstance(batch, Completions)
    np.testing.assert_array_equal(batch.tokens, STORED.tokens)


def test_written_responses_are_the_policys_own_and_judged(key):
    responses = every_response(vocabulary=3, new_tokens=2)
    values = jnp.arange(9.0)[None]
    source = SampledCompletions(
        responses.prompts, TableReward(values, 3), rows=2, samples=5, new_tokens=2
    )
    state, data = draw(source, agent_of(NETWORK), key)
    assert data.tokens.shape == (2, 5, 3) and int(source.environment_steps(state)) == 10
    np.testing.assert_array_equal(
        np.asarray(data.reward), data.tokens[..., 1] * 3 + data.tokens[..., 2]
    )
    own = token_log_probabilities(NETWORK, data)
    np.testing.assert_allclose(np.asarray(data.log_probability), own, atol=1e-6)


def test_another_policy_may_write(key):
    sure = eqx.tree_at(lambda n: n.table, NETWORK, jnp.zeros_like(NETWORK.table).at[:, 2].set(99.0))
    prompts = Prompts(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
    source = SampledCompletions(prompts, None, sure, rows=1, samples=4, new_tokens=3)
    _, data = draw(source, agent_of(NETWORK), key)
    assert data.reward is None and np.all(np.asarray(data.tokens)[..., 1:] == 2)


def test_resets_give_a_beginning_and_mask_it(key):
    source = Resets(STORED, Length(), rows=400, samples=2, new_tokens=3)
    state, data = draw(source, agent_of(NETWORK), key)
    assert int(source.environment_steps(state)) == 800
    tokens, own = np.asarray(data.tokens), np.asarray(data.response)
    starts, counts = np.asarray([1, 1, 2, 1]), np.asarray([2, 4, 2, 1])
    given = {row: [] for row in range(4)}
    for group, masks, rewards in zip(tokens, own, np.asarray(data.reward)):
        for text, mask, reward in zip(group, masks, rewards):
            begun = int(np.argmax(mask))
            fits = [
                row
                for row in range(4)
                if starts[row] <= begun < starts[row] + counts[row]
                and np.array_equal(text[:begun], np.asarray(STORED.tokens)[row][:begun])
            ]
            assert fits, f"{text} begins like no stored text up to {begun}"
            stop = min(starts[fits[0]] + 3, 5)
            np.testing.assert_array_equal(mask, (np.arange(5) >= begun) & (np.arange(5) < stop))
            assert reward == stop - starts[fits[0]], "the reward is of the whole response"
            for row in fits:
                given[row].append(begun - starts[row])
    assert np.all(np.argmax(own, -1)[:, 0] == np.argmax(own, -1)[:, 1]), "samples share the place"
    # One of two tokens can be given, one or two of four if three are the most that is written.
    assert set(given[0]) == set(given[2]) == {1}
    assert set(given[1]) == {1, 2} and set(given[3]) == {0}
    trainer = token_log_probabilities(NETWORK, data)
    np.testing.assert_allclose(np.asarray(data.log_probability), trainer, atol=1e-6)


def test_without_chance_resets_begin_at_the_prompt(key):
    source = Resets(STORED, Length(), chance=0.0, rows=40, samples=1, new_tokens=2)
    _, data = draw(source, agent_of(NETWORK), key)
    begun = np.argmax(np.asarray(data.response), axis=-1)
    assert set(begun.ravel().tolist()) == {1, 2}
    np.testing.assert_array_equal(np.asarray(data.reward), np.full((40, 1), 2.0))


def test_resets_ask_for_rows():
    data = jax.tree.map(lambda x: x[None], STORED)
    with pytest.raises(DataError, match=r"\[row, position\], not of shape \[1, 4, 5\]"):
        Resets(data, Length())


def test_rewards_are_added_up_with_their_weights():
    both = WeightedRewards((Length(), Length()), jnp.asarray([2.0, -0.5]))
    assert both(STORED).tolist() == [3.0, 6.0, 3.0, 1.5]
    with pytest.raises(SpecificationError, match="1 rewards need a weight each"):
        WeightedRewards((Length(),), jnp.ones(2))
