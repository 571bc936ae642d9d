"""What learns around frozen adapters learns as it does with the adapters merged."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.methods.language.texts.sft import SFT
from headwater.networks.adapters.gated import adapters_of
from headwater.networks.adapters.surrounding import Surrounding
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import Adapted


def _adapted() -> Adapted:
    """Adapters on all matrices, which do something."""
    decoder = Decoder(Architecture(7, 6, 8, 1, 2, hidden=16), key=jax.random.key(1), deviation=0.3)
    adapted = Adapted(decoder, key=jax.random.key(2), rank=2, alpha=3.0, matrices=None)
    draw = lambda x, learns: 0.3 * jax.random.normal(jax.random.key(3), x.shape) if learns else x
    return jax.tree.map(draw, adapted, adapted.trainable())


@pytest.mark.equivalence
def test_learning_around_frozen_adapters_is_learning_with_them_merged(key):
    adapted, method = _adapted(), SFT(learning_rate=0.01)
    tokens = jax.random.randint(key, (4, 6), 0, 7, jnp.int32)
    data = Completions(tokens, jnp.broadcast_to(jnp.arange(6) > 0, tokens.shape))

    @eqx.filter_jit
    def learned(network):
        state = method.init(TokenProblem(network), key=key)
        step = lambda state, _: (method.update(state, data, key=key)[0], None)
        return jax.lax.scan(step, state, None, length=5)[0].network

    around, merged = learned(Surrounding(adapted)), learned(adapted.merged())
    np.testing.assert_allclose(around.logits(tokens), merged.logits(tokens), atol=2e-4)
    assert float(jnp.abs(merged.logits(tokens) - adapted.logits(tokens)).max()) > 0.05
    for name, linear in adapters_of(adapted).items():
        after = adapters_of(around.adapted)[name]
        np.testing.assert_array_equal(after.into, linear.into)
        np.testing.assert_array_equal(after.out_of, linear.out_of)
        assert float(jnp.abs(after.inner.weight - linear.inner.weight).max()) > 0.0


def test_everything_else_learns_and_adapters_where_they_are_to():
    adapted = _adapted()
    count = lambda tree: sum(jax.tree.leaves(tree))
    numbers = sum(eqx.is_inexact_array(x) for x in jax.tree.leaves(adapted))
    own = count(adapted.trainable())
    assert own > 0
    assert count(Surrounding(adapted).trainable()) == numbers - own
    assert count(Surrounding(adapted, adapters_learn=True).trainable()) == numbers
