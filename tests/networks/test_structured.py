"""Decoders that read demonstrations apart: who sees whom, in which order, and in which form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.structured import StructuredDecoder

SEPARATOR, ANSWER = 9, 10
ROTARY = Architecture(11, 24, 16, 2, 4, key_value_heads=2)
LEARNED = gpt2(11, 24, 16, 2, 2)
BOTH = pytest.mark.parametrize("architecture", [ROTARY, LEARNED], ids=["rotary", "learned"])


@eqx.filter_jit
def decoder(architecture):
    return Decoder(architecture, key=jax.random.key(0), deviation=0.3)


@eqx.filter_jit
def logits(network, tokens):
    return network.logits(tokens)


def text(demonstrations, query=(6, 3), response=(7, 8, 1), width=16):
    """A prompt with its response, and padding that looks like a prompt."""
    tokens = [token for each in demonstrations for token in (*each, SEPARATOR)]
    tokens += [*query, ANSWER, *response]
    return tokens + [SEPARATOR, ANSWER, 0, 1, 2, 3, 4, 5][: width - len(tokens)]


TEXTS = jnp.asarray([text([(1, 2), (3, 4, 5), ()]), text([(8,)]), text([], query=(5,) * 8)])


def expected_visibility(demonstrations, query, total):
    """Who sees whom, piece by piece: `[position, position]`."""
    seen = np.zeros((total, total), bool)
    start, asked = 0, sum(demonstrations)
    prompt = asked + query
    for length in demonstrations:
        seen[start : start + length, start : start + length] = True
        seen[start : start + length, asked:prompt] = True
        start += length
    seen[asked:, :prompt] = True
    for place in range(prompt, total):
        seen[place, prompt : place + 1] = True
    return seen


@BOTH
def test_logits_move_where_a_token_that_is_seen_is_changed(architecture):
    """With one layer a change moves exactly those who see the token."""
    one = eqx.filter_jit(Decoder)(
        gpt2(11, 24, 16, 1, 2)
        if architecture is LEARNED
        else Architecture(11, 24, 16, 1, 4, key_value_heads=2),
        key=jax.random.key(0),
        deviation=0.3,
    )
    network = StructuredDecoder(one, SEPARATOR, ANSWER)
    tokens = TEXTS[0]
    seen = expected_visibility([3, 4, 1], 3, tokens.shape[0])
    # Tokens that separate nothing, so that what belongs to what stays.
    places = [0, 1, 3, 4, 5, 8, 9, 11, 12]
    changed = jnp.stack([tokens.at[place].set((tokens[place] + 1) % 9) for place in places])
    moved = np.abs(logits(network, changed) - logits(network, tokens[None])).max(-1) > 1e-5
    np.testing.assert_array_equal(moved, seen.T[places])


@BOTH
def test_the_order_of_demonstrations_changes_no_logits_behind_them(architecture):
    network = StructuredDecoder(decoder(architecture), SEPARATOR, ANSWER)
    demonstrations = [(1, 2), (3, 4, 5), ()]
    orders = [(0, 1, 2), (2, 1, 0), (1, 0, 2)]
    tokens = jnp.asarray([text([demonstrations[i] for i in order]) for order in orders])
    found = logits(network, tokens)[:, 8:14]
    np.testing.assert_allclose(found[1:], jnp.broadcast_to(found[:1], found[1:].shape), atol=1e-5)
    whole = logits(StructuredDecoder(decoder(architecture), -1, ANSWER), tokens)[:, 8:14]
    assert float(jnp.abs(whole[1] - whole[0]).max()) > 1e-2


@BOTH
def test_blocks_read_as_the_whole_matrix_of_scores_does(architecture):
    whole = StructuredDecoder(decoder(architecture), SEPARATOR, ANSWER)
    # Five for a demonstration: blocks end within demonstrations. Eleven for query and response.
    blocks = StructuredDecoder(
        decoder(architecture), SEPARATOR, ANSWER, demonstration_tokens=5, query_tokens=14
    )
    expected = logits(whole, TEXTS)
    found = eqx.filter_jit(lambda n: n.unembed(n.hidden_in_blocks(TEXTS)))(blocks)
    np.testing.assert_allclose(found[:2], expected[:2], atol=1e-5)
    # The last text is longer than that, so that its end is read in another way.
    assert float(jnp.abs(found[2] - expected[2]).max()) > 1e-2
    np.testing.assert_allclose(logits(blocks, TEXTS), expected, atol=1e-6)
    short = jnp.full(3, 12)
    found = eqx.filter_jit(lambda n: n.logits(TEXTS, short))(blocks)
    np.testing.assert_allclose(found[:, :12], expected[:, :12], atol=1e-5)
    apart = StructuredDecoder(
        decoder(architecture), SEPARATOR, ANSWER, False, demonstration_tokens=5, query_tokens=14
    )
    found = eqx.filter_jit(lambda n: n.unembed(n.hidden_in_blocks(TEXTS[:2])))(apart)
    expected = logits(StructuredDecoder(decoder(architecture), SEPARATOR, ANSWER, False), TEXTS[:2])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@BOTH
def test_a_text_without_an_answer_is_read_as_the_decoder_reads_it(architecture):
    plain = decoder(architecture)
    tokens = jnp.asarray([[1, 2, SEPARATOR, 3, 4, SEPARATOR, 5, 6]])
    network = StructuredDecoder(plain, SEPARATOR, ANSWER)
    np.testing.assert_allclose(logits(network, tokens), logits(plain, tokens), atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(SpecificationError, match="answer = 11 is no token of this decoder"):
        StructuredDecoder(decoder(ROTARY), SEPARATOR, 11)
    window = Decoder(Architecture(11, 24, 16, 1, 2, window=3), key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="this decoder sees 3 positions from each"):
        StructuredDecoder(window, SEPARATOR, ANSWER)
    with pytest.raises(SpecificationError, match="25 tokens do not fit into a context of 24"):
        logits(StructuredDecoder(decoder(ROTARY), SEPARATOR, ANSWER), jnp.zeros((1, 25), int))
