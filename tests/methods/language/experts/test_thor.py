"""Experts that are drawn: alike they are none, and apart their disagreement is what NumPy finds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.tokens import TokenProblem
from headwater.methods.language.experts.thor import THOR, drawn_experts
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder

from ..text_twin import update
from .tiny import DENSE, RATES, expect_the_steps_of_sft, texts


@pytest.mark.equivalence
def test_with_one_expert_it_is_supervised_fine_tuning(key):
    """Twice the loss is no other direction for Adam."""
    method = THOR(num_experts=1, **RATES)
    expect_the_steps_of_sft(method, TokenProblem(DENSE), key, lambda network: network)


@pytest.mark.parity
def test_loss_and_disagreement_of_two_draws(key):
    network = Decoder(Architecture(5, 6, 4, 2, 1, hidden=4, experts=3), key=key, deviation=1.0)
    data, method = texts(), THOR(consistency_weight=3.0)
    state = method.init(TokenProblem(network), key=key)
    _, metrics = update(method, state, data, key)
    losses, chances = [], []
    for part in jax.random.split(key):
        logits = eqx.filter_jit(drawn_experts(network, key=part).logits)(data.tokens)
        logits = np.asarray(logits, np.float64)
        chances.append(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    total, apart, count = 0.0, 0.0, 0
    for row, place in zip(*np.nonzero(data.response)):
        first, second = (p[row, place - 1] for p in chances)
        token = int(data.tokens[row, place])
        losses.append(-0.5 * (np.log(first[token]) + np.log(second[token])))
        total += losses[-1]
        apart += 0.5 * np.sum(first * np.log(first / second) + second * np.log(second / first))
        count += 1
    np.testing.assert_allclose(metrics["loss"], total / count, rtol=1e-4)
    np.testing.assert_allclose(metrics["disagreement"], apart / count, rtol=1e-3)
    assert apart / count > 0.01


def test_every_expert_is_drawn(key):
    network = Decoder(Architecture(5, 6, 4, 2, 1, hidden=4, experts=3), key=key)
    bare = jax.vmap(lambda k: drawn_experts(network, key=k).blocks.up.weight[:, 0, 0])
    found = bare(jax.random.split(key, 64))
    for layer in range(2):
        assert set(np.asarray(found[:, layer]).tolist()) == set(
            np.asarray(jnp.ravel(network.blocks.up.weight[layer, :, 0, 0])).tolist()
        )
