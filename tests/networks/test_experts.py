"""Experts and their routers against NumPy, one token at a time, and against decoders without."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import Prompts
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.changes import with_experts, with_one_expert, with_router
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.experts import Router, balance_loss, dispatched, mixed
from headwater.ops.language.generation import generate

TOKENS, WIDTH, EXPERTS = 7, 3, 4
LLAMA = Architecture(11, 16, 8, 2, 2, hidden=8)
GPT2 = gpt2(11, 16, 8, 2, 2, hidden=8)
BOTH = pytest.mark.parametrize("architecture", [LLAMA, GPT2], ids=["llama", "gpt2"])


@eqx.filter_jit
def logits(network, tokens):
    return network.logits(tokens)


def decoder(architecture, key):
    made = Decoder(architecture, key=key, deviation=0.3)
    # Biases begin at zero, which would hide what is done with them.
    moved = lambda x: x + 0.1 * jax.random.normal(key, x.shape)
    blocks = made.blocks
    if blocks.up.bias is not None:
        place = lambda d: (d.blocks.up.bias, d.blocks.down.bias)
        made = eqx.tree_at(place, made, tuple(moved(x) for x in place(made)))
    return made


def texts(key, rows=3, positions=6):
    return jax.random.randint(key, (rows, positions), 0, 11)


def experts_of(key):
    """Expert `e` multiplies by its own matrix; the matrices and the function."""
    matrices = jax.random.normal(key, (EXPERTS, WIDTH, WIDTH))
    return np.asarray(matrices, np.float64), lambda x: jnp.einsum("etw,ewv->etv", x, matrices)


def by_hand(router, matrices, x, slots):
    """Token by token; the routing's load of every expert is counted in passing."""
    x, weight = np.asarray(x, np.float64), np.asarray(router.weight, np.float64)
    taken, out = np.zeros(EXPERTS, int), np.zeros_like(x)
    for i, token in enumerate(x):
        scores = np.exp(token @ weight)
        best = np.argsort(-scores)[: int(router.active)]
        total = scores[best].sum() if router.weighting == "chosen" else scores.sum()
        for expert in best:
            taken[expert] += 1
            if taken[expert] <= slots:
                out[i] += scores[expert] / total * (token @ matrices[expert])
    return out, taken


@pytest.mark.parametrize("weighting", ["chosen", "all"])
@pytest.mark.parametrize("active", [1, 2, 4])
def test_experts_are_chosen_weighted_and_filled_in_order(weighting, active, key):
    keys = jax.random.split(key, 3)
    router = Router(
        jax.random.normal(keys[0], (WIDTH, EXPERTS)), jnp.asarray(active, jnp.int32), weighting
    )
    matrices, each = experts_of(keys[1])
    x = jax.random.normal(keys[2], (TOKENS, WIDTH))
    routing = router(x)
    whole, load = by_hand(router, matrices, x, TOKENS)
    np.testing.assert_allclose(mixed(each, routing, x), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.sum(routing.chosen, axis=0), load)
    for slots in (TOKENS, 2):
        found, kept = dispatched(each, routing, x, slots)
        expected, _ = by_hand(router, matrices, x, slots)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(np.sum(kept.kept, axis=0), np.minimum(load, slots))


def test_loads_that_are_even_cost_one_and_one_busy_expert_costs_as_many_as_there_are(key):
    even = Router(jnp.zeros((WIDTH, EXPERTS)), jnp.asarray(EXPERTS, jnp.int32), "all")
    x = jnp.abs(jax.random.normal(key, (TOKENS, WIDTH)))
    np.testing.assert_allclose(balance_loss(even(x)), 1.0, rtol=1e-6)
    busy = Router(even.weight.at[:, 2].set(1e3), jnp.asarray(1, jnp.int32), "all")
    np.testing.assert_allclose(balance_loss(busy(x)), EXPERTS, rtol=1e-6)
    # Half of the tokens go to one expert for sure, half to another: E (1/2 · 1/2 + 1/2 · 1/2).
    sides = jnp.where(jnp.arange(6)[:, None] < 3, 1.0, -1.0) * jnp.ones((6, WIDTH))
    router = Router(
        even.weight.at[:, 0].set(1e3).at[:, 1].set(-1e3), jnp.asarray(1, jnp.int32), "all"
    )
    np.testing.assert_allclose(balance_loss(router(sides)), EXPERTS / 2, rtol=1e-6)
    first = jnp.arange(6) < 3
    np.testing.assert_allclose(balance_loss(router(sides), first), EXPERTS, rtol=1e-6)


@BOTH
def test_copies_and_equal_parts_say_what_the_decoder_says(architecture, key):
    dense, tokens = decoder(architecture, key), texts(key)
    expected = logits(dense, tokens)
    copies = with_experts(dense, 4, key=key, active=2)
    np.testing.assert_allclose(logits(copies, tokens), expected, rtol=1e-4, atol=1e-5)
    parts = with_experts(dense, 4, key=key, active=4, made_of="parts")
    assert parts.architecture.hidden == 2
    assert np.abs(np.asarray(logits(parts, tokens) - expected)).max() > 1e-3
    even = with_router(parts, weight=jnp.zeros_like(parts.blocks.router.weight))
    np.testing.assert_allclose(logits(even, tokens), expected, rtol=1e-4, atol=1e-5)
    fewer = with_router(even, active=3)
    assert np.abs(np.asarray(logits(fewer, tokens) - expected)).max() > 1e-3


def test_one_expert_of_each_layer_is_a_decoder_without_experts(key):
    network = Decoder(Architecture(11, 16, 8, 2, 2, hidden=8, experts=3), key=key, deviation=0.3)
    tokens = texts(key)
    # A router of zeros asks the first expert, and weights of one alone are one.
    first = with_router(network, weight=jnp.zeros_like(network.blocks.router.weight))
    one = with_one_expert(network, jnp.zeros(2, jnp.int32))
    assert one.architecture.experts == 0 and one.blocks.router is None
    np.testing.assert_allclose(logits(one, tokens), logits(first, tokens), rtol=1e-4, atol=1e-5)
    other = with_one_expert(network, jnp.asarray([2, 1]))
    np.testing.assert_array_equal(other.blocks.up.weight[0], network.blocks.up.weight[0, 2])
    np.testing.assert_array_equal(other.blocks.down.weight[1], network.blocks.down.weight[1, 1])


def test_reading_token_by_token_agrees_and_padding_changes_nothing(key):
    architecture = Architecture(11, 16, 8, 2, 2, hidden=8, experts=4, active_experts=2)
    network = Decoder(architecture, key=key, deviation=0.5)
    prompts = Prompts(texts(key, 3, 4), jnp.asarray([4, 2, 3]))
    run = eqx.filter_jit(lambda n, p: generate(n, p, 4, key=key, end=3))
    written = run(network, prompts)
    whole = jax.nn.log_softmax(logits(network, written.tokens))
    again = jnp.take_along_axis(whole[:, :-1], written.tokens[:, 1:, None], axis=-1)[..., 0]
    mask = np.asarray(written.response)[:, 1:]
    found = np.asarray(written.log_probability)[:, 1:]
    np.testing.assert_allclose(found[mask], np.asarray(again)[mask], rtol=1e-4, atol=1e-5)


def test_routers_that_are_not_learned_are_left_alone(key):
    network = Decoder(Architecture(11, 16, 8, 2, 2, experts=2), key=key)
    assert network.trainable().blocks.router.weight
    fixed = with_router(network, learned=False).trainable()
    assert not fixed.blocks.router.weight and not fixed.blocks.router.active
    assert fixed.blocks.up.weight


def test_what_cannot_be_is_refused(key):
    dense = Decoder(LLAMA, key=key)
    with pytest.raises(SpecificationError, match="8 hidden units cannot be divided among 3"):
        with_experts(dense, 3, key=key, made_of="parts")
    with pytest.raises(SpecificationError, match="5 of 4 experts cannot work on a token"):
        Architecture(11, 16, 8, 2, 2, experts=4, active_experts=5)
    with pytest.raises(SpecificationError, match=r"capacity = 1\.25 is a share of the tokens"):
        Architecture(11, 16, 8, 2, 2, experts=4, capacity=1.25)
    with pytest.raises(SpecificationError, match="has 2 experts already"):
        with_experts(with_experts(dense, 2, key=key), 2, key=key)
    with pytest.raises(SpecificationError, match="this decoder has no experts"):
        dense.routed_hidden(texts(key))
