"""Linear expansions, number by number, and their loss against NumPy."""

import equinox as eqx
import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.methods.language.growth.tleg import TLEG, LinearExpansion
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.token_table import PrefixTable

from ..experts.tiny import texts
from ..text_twin import update

_TEACHER = Decoder(Architecture(5, 6, 4, 3, 1, hidden=4), key=jax.random.key(0), deviation=0.8)


@pytest.mark.parity
def test_loss_and_divergence_are_what_numpy_finds(key):
    method, data = TLEG(distillation_weight=0.3), texts()
    state = method.init(TokenProblem(_TEACHER), key=key)
    _, metrics = update(method, state, data, key)

    def chances(network):
        logits = np.asarray(eqx.filter_jit(network.logits)(data.tokens), np.float64)
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    teacher, own = chances(_TEACHER), chances(method.network(state))
    surprise, apart = [], []
    for row, place in zip(*np.nonzero(data.response)):
        p, q = teacher[row, place - 1], own[row, place - 1]
        surprise.append(-np.log(q[int(data.tokens[row, place])]))
        apart.append(np.sum(p * np.log(p / q)))
    np.testing.assert_allclose(metrics["loss"], np.mean(surprise), rtol=1e-4)
    np.testing.assert_allclose(metrics["teacher_divergence"], np.mean(apart), rtol=1e-3)
    assert np.mean(apart) > 0.01


@pytest.mark.oracle
def test_layers_lie_on_a_line_and_descendants_of_any_depth_are_as_said(key):
    expansion = LinearExpansion(_TEACHER.architecture, key=key)
    # Norms are alike at first, and so no slope of them.
    assert not np.any(np.asarray(expansion.slope.attention_norm.scale))
    base, slope = expansion.base.blocks.up.weight[0], expansion.slope.up.weight[0]
    for layers in (1, 3, 4):
        decoder = expansion.decoder(layers)
        assert decoder.layer_count == layers
        for i in range(layers):
            np.testing.assert_allclose(
                decoder.blocks.up.weight[i], base + i / layers * slope, atol=1e-7
            )
        np.testing.assert_array_equal(decoder.blocks.attention_norm.scale, np.ones((layers, 4)))
    found = eqx.filter_jit(expansion.logits)(texts().tokens)
    expected = eqx.filter_jit(expansion.decoder(3).logits)(texts().tokens)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.oracle
def test_the_teacher_stays_and_is_approached(key):
    """A teacher whose layers lie on a line can be imitated until little is left."""
    expansion = LinearExpansion(_TEACHER.architecture, key=key)
    larger = jax.tree.map(lambda x: 10.0 * x, expansion.base.embedding)
    teacher = eqx.tree_at(lambda e: e.base.embedding, expansion, larger).decoder(3)
    method = TLEG(learning_rate=0.03, weight_decay=0.0)
    state = method.init(TokenProblem(teacher), key=jax.random.key(1))

    @jax.jit
    def learn(state):
        step = lambda state, key: method.update(state, texts(), key=key)
        return jax.lax.scan(step, state, jax.random.split(key, 150))

    after, metrics = learn(state)
    apart = np.asarray(metrics["teacher_divergence"])
    assert apart[-1] < 0.2 * apart[0]
    for one, other in zip(jax.tree.leaves(after.frozen), jax.tree.leaves(teacher)):
        np.testing.assert_array_equal(one, other)


def test_others_than_plain_decoders_are_refused(key):
    with pytest.raises(SpecificationError, match="which this PrefixTable is not"):
        TLEG().init(TokenProblem(PrefixTable(3, 3)), key=key)
    routed = Decoder(Architecture(5, 6, 4, 2, 1, experts=2), key=key)
    with pytest.raises(SpecificationError, match="without experts or adapters"):
        TLEG().init(TokenProblem(routed), key=key)
