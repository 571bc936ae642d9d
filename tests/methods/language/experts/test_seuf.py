"""Unlearning in one expert against NumPy: which one, what it learns from, and what stays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import LabelledCompletions
from headwater.core.tokens import TokenProblem
from headwater.methods.language.experts.seuf import SEUF
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.tokens import token_log_probabilities

from ..text_twin import update
from .tiny import texts

NETWORK = Decoder(
    Architecture(5, 6, 4, 2, 1, hidden=4, experts=3, active_experts=2),
    key=jax.random.key(3),
    deviation=1.0,
)
DATA = LabelledCompletions(texts(), jnp.arange(6) % 2 > 0)


def affinities():
    """Of each expert: over the tokens of each text to be forgotten, then over texts."""
    _, routing = eqx.filter_jit(NETWORK.routed_hidden)(DATA.completions.tokens)
    probabilities = np.asarray(routing.probabilities, np.float64).reshape(2, 6, 6, 3)
    found = []
    for row in range(0, 6, 2):
        last = np.nonzero(DATA.completions.response[row])[0][-1]
        found.append(probabilities[:, row, : last + 1].mean(axis=1))
    return np.mean(found, axis=0), probabilities


@pytest.mark.parity
@pytest.mark.parametrize("unlearning", ["npo", "gradient_ascent"])
def test_one_expert_learns_and_the_rest_stays(unlearning, key):
    method = SEUF(
        unlearning=unlearning,
        beta=0.5,
        retain_weight=2.0,
        anchor_weight=3.0,
        learning_rate=0.05,
        weight_decay=0.1,
        affinity_rank=1,
    )
    first = method.init(TokenProblem(NETWORK), key=key)
    measured, _ = update(method, first, DATA, key)
    for old, new in zip(jax.tree.leaves(NETWORK), jax.tree.leaves(method.network(measured))):
        np.testing.assert_array_equal(new, old)
    expected, probabilities = affinities()
    np.testing.assert_allclose(measured.affinity, expected, rtol=1e-4)
    layer, expert = np.unravel_index(np.argsort(-expected.ravel())[1], expected.shape)

    last, metrics = update(method, measured, DATA, key)
    own = np.asarray(token_log_probabilities(NETWORK, DATA.completions), np.float64).sum(-1)
    count = np.asarray(DATA.completions.response).sum(-1)
    # Nothing has moved yet, so that every log-ratio is zero.
    away = 2.0 / 0.5 * np.log(2.0) if unlearning == "npo" else own[::2].mean()
    retained = -(own / count)[1::2].mean()
    off = []
    for row in range(0, 6, 2):
        for place in range(np.nonzero(DATA.completions.response[row])[0][-1] + 1):
            off.append(((probabilities[layer, row, place] - np.eye(3)[expert]) ** 2).sum())
    total = away + 2.0 * retained + 3.0 * np.mean(off)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-4)

    network = method.network(last)
    for name in ("up", "down", "gate"):
        moved = np.asarray(
            getattr(network.blocks, name).weight != getattr(NETWORK.blocks, name).weight
        )
        where = np.zeros((2, 3), bool)
        where[layer, expert] = True
        np.testing.assert_array_equal(moved.reshape(2, 3, -1).any(-1), where)
    router = np.asarray(network.blocks.router.weight != NETWORK.blocks.router.weight)
    np.testing.assert_array_equal(router.reshape(2, -1).any(-1), np.arange(2) == layer)
    np.testing.assert_array_equal(network.embedding, NETWORK.embedding)
    np.testing.assert_array_equal(network.blocks.query.weight, NETWORK.blocks.query.weight)
