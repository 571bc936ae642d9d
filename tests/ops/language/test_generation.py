"""Samples have the probabilities that the network says, and stop where they should."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractIncremental, AbstractTokenNetwork, Prompts
from headwater.environments.language.token_process import every_response
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.generation import Restrictions, generate, narrowed, penalised
from headwater.ops.language.tokens import next_log_probabilities, token_log_probabilities


class Remembering(AbstractTokenNetwork, AbstractIncremental):
    """A table that reads one token at a time: what it remembers are the tokens."""

    inner: PrefixTable
    vocabulary: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(self, inner: PrefixTable):
        self.inner, self.vocabulary, self.context = inner, inner.vocabulary, inner.context

    def logits(self, tokens):
        return self.inner.logits(tokens)

    def read(self, tokens, length, capacity):
        room = capacity - tokens.shape[-1]
        logits = self.inner.logits(tokens)[jnp.arange(len(tokens)), length - 1]
        return jnp.pad(tokens, ((0, 0), (0, room))), logits

    def read_one(self, cache, token, position):
        rows = jnp.arange(len(token))
        cache = cache.at[rows, position].set(token)
        return cache, self.inner.logits(cache)[rows, position]


NETWORK = PrefixTable(3, 4, key=jax.random.key(1))
PROMPTS = Prompts(jnp.asarray([[0, 1], [2, 9]], jnp.int32), jnp.asarray([2, 1], jnp.int32))
"""One of two tokens, one of a single token with padding behind it."""


def test_samples_have_the_probabilities_of_the_network(key):
    responses = every_response(vocabulary=3, new_tokens=2)
    data = jax.jit(lambda: generate(NETWORK, responses.prompts, 2, key=key, samples=20_000))()
    index = np.asarray(data.tokens[0, :, 1] * 3 + data.tokens[0, :, 2])
    found = np.bincount(index, minlength=9) / len(index)
    exact = np.exp(np.sum(token_log_probabilities(NETWORK, responses.data), axis=-1))[0]
    np.testing.assert_allclose(found, exact, atol=4.0 * np.sqrt(0.25 / len(index)))


@pytest.mark.parametrize("network", [NETWORK, Remembering(NETWORK)], ids=["rereading", "cache"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_are_those_of_the_trainer(network, temperature, key):
    write = jax.jit(
        lambda: generate(network, PROMPTS, 2, key=key, end=1, samples=8, temperature=temperature)
    )
    data = write()
    assert data.tokens.shape == (2, 8, 4)
    trainer = token_log_probabilities(NETWORK, data, temperature)
    np.testing.assert_allclose(data.log_probability, trainer, atol=1e-6)


def test_both_ways_of_reading_write_the_same(key):
    written = [
        jax.jit(lambda n=n: generate(n, PROMPTS, 2, key=key, samples=8))()
        for n in (NETWORK, Remembering(NETWORK))
    ]
    np.testing.assert_array_equal(written[0].tokens, written[1].tokens)


def test_responses_begin_after_their_own_prompt_and_stop_at_the_end_token(key):
    data = jax.jit(lambda: generate(NETWORK, PROMPTS, 2, key=key, end=1, samples=50))()
    tokens, response = np.asarray(data.tokens), np.asarray(data.response)
    np.testing.assert_array_equal(tokens[0, :, :2], np.broadcast_to([0, 1], (50, 2)))
    np.testing.assert_array_equal(tokens[1, :, 0], np.full(50, 2))
    for row, start in ((0, 2), (1, 1)):
        for text, mask in zip(tokens[row], response[row]):
            stop = start + (1 if text[start] == 1 else 2)
            np.testing.assert_array_equal(mask, (np.arange(4) >= start) & (np.arange(4) < stop))
            assert not np.any(text[stop:]), "nothing is written after the end"
    assert 0 < np.sum(tokens[1, :, 1] == 1) < 50


def test_any_of_several_tokens_ends_a_response(key):
    ended = generate(NETWORK, PROMPTS, 2, key=key, end=(0, 2), samples=50)
    free = generate(NETWORK, PROMPTS, 2, key=key, samples=50)
    lengths = set()
    for row, start in ((0, 2), (1, 1)):
        for sample in range(50):
            text = np.asarray(free.tokens[row, sample, start : start + 2])
            length = 1 if text[0] in (0, 2) else 2
            mask = (np.arange(4) >= start) & (np.arange(4) < start + length)
            np.testing.assert_array_equal(ended.response[row, sample], mask)
            np.testing.assert_array_equal(ended.tokens[row, sample, mask], text[:length])
            lengths.add((int(text[0]), length))
    assert {(0, 1), (2, 1), (1, 2)} <= lengths


def test_writing_stops_when_all_have_ended(key):
    """A table that ends at once writes one token, however many it may."""
    table = jnp.zeros_like(NETWORK.table).at[:, 1].set(50.0)
    ending = eqx.tree_at(lambda network: network.table, NETWORK, table)

    reads: list[int] = []

    class Counting(AbstractTokenNetwork):
        """Counts on the host how often it is read."""

        inner: PrefixTable
        vocabulary: int = eqx.field(static=True)
        context: int = eqx.field(static=True)

        def __init__(self, inner: PrefixTable):
            self.inner, self.vocabulary, self.context = inner, inner.vocabulary, inner.context

        def logits(self, tokens):
            jax.debug.callback(lambda: reads.append(1))
            return self.inner.logits(tokens)

    prompts = Prompts(PROMPTS.tokens[:, :1], jnp.asarray([1, 1], jnp.int32))
    data = generate(Counting(ending), prompts, 3, key=key, end=1)
    jax.effects_barrier()
    np.testing.assert_array_equal(np.sum(data.response, axis=-1), [1, 1])
    assert len(reads) == 2, "the prompt once, and the one token"


def test_greedy_takes_the_likeliest_tokens(key):
    data = jax.jit(lambda: generate(NETWORK, PROMPTS, 2, key=key, greedy=True))()
    for row, start in ((0, 2), (1, 1)):
        text = [int(token) for token in PROMPTS.tokens[row, :start]]
        for _ in range(2):
            logits = NETWORK.logits(jnp.asarray([text], jnp.int32))[0, -1]
            text.append(int(jnp.argmax(logits)))
        np.testing.assert_array_equal(data.tokens[row, : start + 2], text)


def test_what_top_k_and_top_p_leave():
    probabilities = jnp.log(jnp.asarray([[0.5, 0.05, 0.3, 0.15]]))

    def left(top_k, top_p):
        return list(np.nonzero(np.isfinite(narrowed(probabilities, top_k, top_p)[0]))[0])

    assert left(None, None) == [0, 1, 2, 3]
    assert left(1, None) == [0]
    assert left(3, None) == [0, 2, 3]
    assert left(None, 0.1) == [0], "the likeliest stays"
    assert left(None, 0.51) == [0, 2]
    assert left(None, 0.79) == [0, 2]
    assert left(None, 0.81) == [0, 2, 3]
    # Of the two that top_k leaves, the first holds 0.5 / 0.8 already.
    assert left(2, 0.6) == [0]


def test_samples_stay_within_top_k(key):
    write = jax.jit(
        lambda: generate(NETWORK, PROMPTS, 1, key=key, samples=100, restrictions=Restrictions(2))
    )
    tokens = np.asarray(write().tokens)
    for row, start in ((0, 2), (1, 1)):
        logits = NETWORK.logits(PROMPTS.tokens[row : row + 1, :start])[0, -1]
        assert set(tokens[row, :, start]) == set(np.argsort(logits)[1:].tolist())


def test_texts_that_do_not_fit_are_refused(key):
    with pytest.raises(SpecificationError, match="prompts of 2 tokens and 3 new ones do not fit"):
        generate(NETWORK, PROMPTS, 3, key=key)


def test_tokens_far_less_likely_than_the_likeliest_are_left_out():
    chances = jnp.asarray([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]])
    kept = np.isfinite(narrowed(jnp.log(chances), min_p=0.25))
    # A quarter of 0.5 is 0.125; of what top-k leaves, the likeliest one is the same.
    np.testing.assert_array_equal(kept, [[1, 1, 1, 0], [1, 0, 0, 0]])
    kept = np.isfinite(narrowed(jnp.log(chances), top_k=2, min_p=0.25))
    np.testing.assert_array_equal(kept, [[1, 1, 0, 0], [1, 0, 0, 0]])
    assert np.isfinite(narrowed(jnp.log(chances), min_p=0.0)).all()


def test_tokens_that_are_there_already_become_less_likely(key):
    logits = jnp.asarray([[2.0, -1.0, 0.5]])
    present = jnp.asarray([[True, True, False]])
    np.testing.assert_allclose(penalised(logits, present, 4.0), [[0.5, -4.0, 0.5]])
    # What the prompt has, and what was written, but not what pads it: the second text is "2" and
    # has a 1 behind it, which is free.
    prompts = Prompts(jnp.asarray([[0, 1], [2, 1]], jnp.int32), jnp.asarray([2, 1], jnp.int32))
    write = jax.jit(
        lambda: generate(
            NETWORK, prompts, 2, key=key, samples=30,
            restrictions=Restrictions(repetition_penalty=1e9),
        )
    )  # fmt: skip
    written = write()
    tokens, response = np.asarray(written.tokens), np.asarray(written.response)
    first = tokens[0][response[0]].reshape(30, 2)
    # A logit of 1e9 times less than nothing is never drawn; one divided by it is 0.
    table = np.asarray(NETWORK.logits(prompts.tokens))
    assert (table[0, 1] != 0).all()
    free = {token for token in range(3) if token == 2 or table[0, 1, token] > 0}
    assert set(first[:, 0].tolist()) <= free
    np.testing.assert_allclose(
        written.log_probability, token_log_probabilities(NETWORK, written), atol=1e-6
    )


def test_what_is_drawn_from_is_what_transformers_draws_from(key):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    processors = transformers.generation.logits_process
    logits = 2.0 * jax.random.normal(key, (6, 20))
    tokens = jax.random.randint(key, (6, 5), 0, 20)
    theirs, own = torch.tensor(np.asarray(logits)), torch.tensor(np.asarray(tokens)).long()
    for processor in (
        processors.RepetitionPenaltyLogitsProcessor(1.7),
        processors.TemperatureLogitsWarper(0.6),
        processors.TopKLogitsWarper(12),
        processors.TopPLogitsWarper(0.9),
        processors.MinPLogitsWarper(0.05),
    ):
        theirs = processor(own, theirs)
    present = jnp.zeros(logits.shape, bool).at[jnp.arange(6)[:, None], tokens].set(True)
    lower = next_log_probabilities(penalised(logits, present, 1.7), 0.6)
    ours = jax.nn.softmax(narrowed(lower, 12, 0.9, 0.05))
    np.testing.assert_allclose(ours, torch.softmax(theirs, -1).numpy(), atol=1e-6)
    assert 6 < np.count_nonzero(ours) < 72
