"""Gates and routing among adapters, against NumPy and against adapters without them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.decoding.instruction_routing import InstructionRouter
from headwater.networks.adapters.gated import Gated, RoutedLinear, preferring, routed
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.blocks import Linear
from headwater.networks.decoders.changes import with_gradient_accumulation
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import Adapted

_MATRICES = ("value", "up")
_TOKENS = jax.random.randint(jax.random.key(5), (3, 6), 0, 7)


@eqx.filter_jit
def _logits(network, tokens=_TOKENS):
    return network.logits(tokens)


@eqx.filter_jit
def _expert(number: int, matrices=_MATRICES) -> Gated:
    """An expert whose adapters and gates all do something."""
    key = jax.random.key(number)
    decoder = Decoder(Architecture(7, 6, 8, 2, 2), key=jax.random.key(9), deviation=0.3)
    expert = Gated(Adapted(decoder, key=key, rank=2, alpha=3.0, matrices=matrices))
    written = lambda e: [getattr(e.adapted.decoder.blocks, m).out_of for m in matrices]
    keys = jax.random.split(key, 4)
    drawn = [0.5 * jax.random.normal(k, x.shape) for k, x in zip(keys, written(expert))]
    expert = eqx.tree_at(written, expert, drawn)
    gates = tuple(jax.random.normal(k, x.shape) for k, x in zip(keys[2:], expert.gates))
    return eqx.tree_at(lambda e: e.gates, expert, gates)


def _gate(expert: Gated, value: float) -> Gated:
    return eqx.tree_at(lambda e: e.gates, expert, tuple(value * x for x in expert.gates))


def test_a_new_gate_lets_half_pass_and_only_gates_learn():
    expert = _expert(0)
    half = eqx.tree_at(
        lambda a: [getattr(a.decoder.blocks, m).out_of for m in _MATRICES],
        expert.adapted,
        replace_fn=lambda x: 0.5 * x,
    )
    np.testing.assert_allclose(_logits(_gate(expert, 0.0)), _logits(half), atol=1e-5)
    assert float(jnp.abs(_logits(expert) - _logits(half)).max()) > 0.01
    learned = eqx.filter(expert, expert.trainable())
    assert [x.shape for x in jax.tree.leaves(learned)] == [(2, 8), (2, 8)]


def test_gates_read_a_batch_in_as_many_parts_as_the_decoder():
    adapted = _expert(0).adapted
    parted = with_gradient_accumulation(adapted.decoder, 3)
    assert Gated(eqx.tree_at(lambda a: a.decoder, adapted, parted)).gradient_accumulation == 3


def test_one_routed_expert_is_its_adapter_whole():
    expert = _expert(0)
    np.testing.assert_allclose(
        _logits(routed([expert], active=1)), _logits(expert.adapted), atol=1e-5
    )
    twice = routed([expert, _gate(expert, -2.0)], active=2)
    np.testing.assert_allclose(_logits(twice), _logits(expert.adapted), atol=1e-5)


@pytest.mark.parametrize("standardised", [True, False])
def test_the_best_two_are_weighted_as_numpy_does(key, standardised):
    keys = jax.random.split(key, 6)
    sizes = ((5, 4), (3, 5, 2), (3, 2, 4), (3, 5), (3,), (6, 5))
    weight, into, out_of, gate, preference, x = (
        jax.random.normal(k, size) for k, size in zip(keys, sizes)
    )
    layer = RoutedLinear(Linear(weight), into, out_of, 3.0 * gate, preference, 2, standardised)
    found = layer(x.reshape(2, 3, 5)).reshape(6, 4)
    gates = 3.0 * np.asarray(gate, np.float64)
    standard = lambda v: (v - v.mean()) / np.sqrt(v.var() + 1e-5) if standardised else v
    for token, row in zip(np.asarray(x, np.float64), found):
        scores = np.asarray(
            [
                standard(token) @ standard(g) / np.sqrt(5) + p
                for g, p in zip(gates, np.asarray(preference))
            ]
        )
        expected = token @ np.asarray(weight)
        best = np.argsort(scores)[1:]
        for e in best:
            share = np.exp(scores[e]) / np.exp(scores[best]).sum()
            expected = expected + share * (token @ np.asarray(into[e]) @ np.asarray(out_of[e]))
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_a_strong_preference_is_one_expert_for_all_tokens_and_generation_agrees():
    experts = [_expert(0), _expert(1), _expert(2)]
    decoder = routed(experts)
    alone = preferring(decoder, jnp.asarray([0.0, 1e6, 0.0]))
    np.testing.assert_allclose(_logits(alone), _logits(experts[1].adapted), atol=1e-4)
    length = jnp.full(3, 5)
    cache, after = eqx.filter_jit(decoder.read)(_TOKENS[:, :5], length, 6)
    np.testing.assert_allclose(after, _logits(decoder)[:, 4], atol=1e-4)
    _, last = eqx.filter_jit(decoder.read_one)(cache, _TOKENS[:, 5], length)
    np.testing.assert_allclose(last, _logits(decoder)[:, 5], atol=1e-4)


def test_experts_that_do_not_fit_together_are_refused():
    with pytest.raises(SpecificationError, match="different matrices, or of different ranks"):
        routed([_expert(0), _expert(1, ("value",))])
    with pytest.raises(SpecificationError, match="3 of 1 experts"):
        routed([_expert(0)], active=3)


@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_instructions_choose_for_each_text(scale):
    experts = [_expert(0), _expert(1), _expert(2)]
    decoder = routed(experts)
    router = InstructionRouter(jnp.asarray([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]), scale)
    np.testing.assert_allclose(
        router.preference(jnp.asarray([3.0, 4.0])),
        scale * np.asarray([0.6, 0.8, 1.4 / 2**0.5]),
        rtol=1e-5,
    )
    instructions = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    found = eqx.filter_jit(router.logits)(decoder, _TOKENS, instructions)
    expected = (
        jnp.stack([_logits(e.adapted, _TOKENS[i : i + 1])[0] for i, e in enumerate(experts)])
        if scale
        else _logits(decoder)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not np.any(np.asarray(router.preference(jnp.zeros(2))))
