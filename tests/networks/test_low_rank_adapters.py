"""Adapters begin as nothing, alone learn, and can be left out or merged."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import Prompts, TokenProblem
from headwater.methods.language.comparisons.dpo import DPO
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import MATRICES, Adapted, AdaptedLinear
from headwater.ops.language.generation import generate
from headwater.ops.language.tokens import token_log_probabilities

ARCHITECTURE = Architecture(11, 16, 16, 2, 4, key_value_heads=2)


@eqx.filter_jit
def written_by(network, prompts, new_tokens, key, samples=None):
    return generate(network, prompts, new_tokens, key=key, end=3, samples=samples)


again_by = eqx.filter_jit(token_log_probabilities)


@eqx.filter_jit
def logits(network, tokens):
    return network.logits(tokens)


@eqx.filter_jit
def _decoder(architecture, key):
    return Decoder(architecture, key=key, deviation=0.3)


def shaken(adapted, key):
    """With adapters that do something."""
    trained, rest = eqx.partition(adapted, adapted.trainable())
    leaves, tree = jax.tree.flatten(trained)
    keys = jax.random.split(key, len(leaves))
    leaves = [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)]
    return eqx.combine(jax.tree.unflatten(tree, leaves), rest)


@pytest.fixture
def tokens(key):
    return jax.random.randint(key, (4, 7), 0, 11)


def test_adapters_begin_as_nothing_and_can_be_merged_and_left_out(key, tokens):
    decoder = _decoder(ARCHITECTURE, key)
    adapted = Adapted(decoder, key=key, rank=2, alpha=6.0, matrices=MATRICES)
    np.testing.assert_allclose(logits(adapted, tokens), logits(decoder, tokens), atol=1e-6)
    changed = shaken(adapted, key)
    assert float(jnp.abs(logits(changed, tokens) - logits(decoder, tokens)).max()) > 0.1
    merged = changed.merged()
    assert jax.tree.structure(merged) == jax.tree.structure(decoder)
    np.testing.assert_allclose(logits(merged, tokens), logits(changed, tokens), atol=1e-4)
    query = changed.decoder.blocks.query
    assert isinstance(query, AdaptedLinear)
    expected = query.inner.weight[1] + 3.0 * query.into[1] @ query.out_of[1]
    np.testing.assert_allclose(merged.blocks.query.weight[1], expected, rtol=1e-4, atol=1e-6)
    same = changed.without_adapters()
    assert all(a is b for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(decoder), strict=True))


def test_generation_reads_the_adapters(key, tokens):
    adapted = shaken(Adapted(_decoder(ARCHITECTURE, key), key=key), key)
    written = written_by(adapted, Prompts(tokens, jnp.array([1, 7, 3, 5])), 6, key)
    again = again_by(adapted, written)
    np.testing.assert_allclose(written.log_probability, again, atol=1e-5)


def test_preferences_train_adapters_alone_and_the_reference_costs_no_memory(key, tokens):
    decoder = _decoder(ARCHITECTURE, key)
    problem = TokenProblem(Adapted(decoder, key=key, rank=2))
    response = jnp.arange(7)[None] > jnp.full((4, 1), 2)
    data = CompletionComparisons(
        Completions(tokens, response), Completions((tokens + 1) % 11, response)
    )
    method = DPO(learning_rate=0.01)
    state = method.init(problem, key=key)
    assert state.frozen is None
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.optimiser))
    adapters = jax.tree.leaves(eqx.filter(problem.network, problem.network.trainable()))
    assert len(adapters) == 4
    assert moments == 2 * sum(leaf.size for leaf in adapters) + 1
    update = eqx.filter_jit(method.update)
    for _ in range(3):
        state, metrics = update(state, data, key=key)
    assert metrics["loss"] < 0.65
    before = jax.tree_util.tree_leaves_with_path(problem.network)
    for (path, old), new in zip(before, jax.tree.leaves(state.network), strict=True):
        name = jax.tree_util.keystr(path)
        adapter = "into" in name or "out_of" in name
        assert jnp.array_equal(old, new) != adapter, name
    reference = state.reference
    for old, new, own in zip(
        jax.tree.leaves(decoder),
        jax.tree.leaves(reference),
        jax.tree.leaves(state.network.without_adapters()),
        strict=True,
    ):
        assert new is own and jnp.array_equal(old, new)


def test_what_cannot_be_adapted(key):
    decoder = _decoder(gpt2(11, 16, 16, 2, 2), key)
    with pytest.raises(SpecificationError, match="unknown matrix 'gate'"):
        Adapted(decoder, key=key, matrices=("query", "gate"))
    with pytest.raises(SpecificationError, match="name the matrices to adapt: query, key, value"):
        Adapted(decoder, key=key, matrices=())
    with pytest.raises(SpecificationError, match="rank 0 cannot learn"):
        Adapted(decoder, key=key, rank=0)
