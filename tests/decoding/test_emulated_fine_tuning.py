"""Networks that write together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import Prompts
from headwater.decoding.emulated_fine_tuning import Combined, emulated
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.generation import generate
from headwater.ops.language.tokens import token_log_probabilities


def _tables(count):
    return [PrefixTable(3, 3, key=jax.random.key(i)) for i in range(count)]


def _log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_emulated_fine_tuning_adds_what_training_changed():
    base, first, second, untuned = _tables(4)
    network = emulated(base, [first, second], untuned, strengths=[0.5, 2.0])
    tokens = jnp.asarray([[0, 2, 1]])
    each = [_log_softmax(n.logits(tokens)) for n in (base, first, second, untuned)]
    expected = each[0] + 0.5 * (each[1] - each[3]) + 2.0 * (each[2] - each[3])
    found = _log_softmax(network.logits(tokens))
    np.testing.assert_allclose(found, _log_softmax(expected), atol=1e-5)
    assert not any(jax.tree.leaves(network.trainable()))


def test_nothing_changes_where_training_changed_nothing():
    base, other = _tables(2)
    tokens = jnp.asarray([[0, 2, 1]])
    network = emulated(base, other, other, strengths=3.0)
    expected = _log_softmax(base.logits(tokens))
    np.testing.assert_allclose(_log_softmax(network.logits(tokens)), expected, atol=1e-5)


def test_only_likely_tokens_of_the_first_network_are_left():
    base, tuned, untuned = _tables(3)
    tokens = jnp.asarray([[0, 2, 1]])
    logits = np.asarray(emulated(base, tuned, untuned, top_p=0.6).logits(tokens))
    probabilities = np.exp(_log_softmax(base.logits(tokens)))
    for position in range(3):
        order = np.argsort(-probabilities[0, position])
        held = np.cumsum(probabilities[0, position][order])
        kept = set(order[: 1 + int(np.searchsorted(held, 0.6))])
        assert set(np.nonzero(np.isfinite(logits[0, position]))[0]) == kept


def test_caches_continue_as_if_everything_was_read_again(key):
    """Two decoders and a table, which has no cache and reads everything anew."""

    def written(key):
        networks = [
            Decoder(Architecture(3, 4, width=w, layers=1, heads=2), key=key, deviation=0.5)
            for w in (8, 4)
        ]
        weights = jnp.asarray([1.0, 1.0, -1.0])
        network = Combined([*networks, PrefixTable(3, 4, key=key)], weights)
        prompts = Prompts(jnp.asarray([[1, 2], [2, 0]]), jnp.asarray([2, 1]))
        data = generate(network, prompts, 2, key=key)
        return data.log_probability, token_log_probabilities(network, data)

    then, again = jax.jit(written)(key)
    np.testing.assert_allclose(then, again, atol=2e-4)
    assert float(jnp.min(again)) < -0.1


def test_what_does_not_fit_is_refused():
    message = r"these have \[3, 4\] tokens and 2 weights"
    with pytest.raises(SpecificationError, match=message):
        Combined([PrefixTable(3, 2), PrefixTable(4, 2)], jnp.ones(2))
