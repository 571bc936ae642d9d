"""Decoders that read vectors: with the embeddings of tokens they are what they were."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.changes import without_tokens
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.vectors import hidden_of_vectors
from headwater.networks.low_rank_adapters import Adapted

ARCHITECTURES = {
    "llama": Architecture(7, 12, 16, 2, 4, key_value_heads=2),
    "gpt2": gpt2(7, 12, 16, 2, 2),
    "local": Architecture(
        7, 12, 16, 2, 4, window=3, local_layers=(True, False), local_rotary_base=100.0
    ),
    "experts": Architecture(7, 12, 16, 2, 4, experts=3, active_experts=2),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_embeddings_of_tokens_are_read_as_the_tokens_are(name):
    keys = jax.random.split(jax.random.key(0), 3)
    decoder = Decoder(ARCHITECTURES[name], key=keys[0], deviation=0.3)
    tokens = jax.random.randint(keys[1], (3, 9), 0, 7)
    body, read = without_tokens(decoder), jax.jit(hidden_of_vectors)
    vectors = decoder.embedding[tokens]
    found = read(body, vectors)
    np.testing.assert_allclose(found, eqx.filter_jit(decoder.hidden)(tokens), atol=2e-5)
    assert body.vocabulary == 1 and body.embedding.shape == (1, 16)
    # Adapters begin as nothing, and are read where they are something.
    adapted = Adapted(body, key=keys[2], rank=2)
    np.testing.assert_allclose(read(adapted.decoder, vectors), found, atol=2e-5)
    grown = jax.tree.map(lambda x, learns: x + 0.1 if learns else x, adapted, adapted.trainable())
    merged = read(grown.merged(), vectors)
    np.testing.assert_allclose(read(grown.decoder, vectors), merged, atol=1e-4)
    assert np.abs(merged - found).max() > 1e-2


def test_no_vector_sees_a_later_one_and_rows_have_to_fit():
    decoder = Decoder(ARCHITECTURES["llama"], key=jax.random.key(0))
    vectors = jax.random.normal(jax.random.key(1), (2, 12, 16))
    changed = vectors.at[:, 8:].add(1.0)
    read = jax.jit(hidden_of_vectors)
    first, second = (np.asarray(read(decoder, x)) for x in (vectors, changed))
    np.testing.assert_array_equal(first[:, :8], second[:, :8])
    assert (np.abs(first[:, 8:] - second[:, 8:]).max(axis=-1) > 1e-3).all()
    with pytest.raises(SpecificationError, match="13 vectors do not fit into a context of 12"):
        hidden_of_vectors(decoder, jnp.zeros((1, 13, 16)))
