"""Adapters and then gates: the first as `SFT` of adapters, the second against their gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.methods.language.experts.phatgoose import PHATGOOSE
from headwater.methods.language.texts.sft import SFT
from headwater.networks.low_rank_adapters import Adapted
from headwater.networks.token_table import PrefixTable

from ..exact_texts import learn
from .tiny import DENSE, RATES, texts


@pytest.mark.equivalence
def test_it_is_fine_tuning_of_adapters_and_then_of_gates_alone(key):
    problem = TokenProblem(Adapted(DENSE, key=key, rank=2, matrices=("query", "down")))
    method = PHATGOOSE(expert_updates=3.0, **RATES)
    three, _ = learn(method, problem, texts(), key=key, updates=3)
    plain, _ = learn(SFT(**RATES), problem, texts(), key=key, updates=3)
    np.testing.assert_allclose(
        three.expert.adapted.decoder.blocks.down.out_of,
        plain.network.decoder.blocks.down.out_of,
        atol=1e-6,
    )
    assert float(jnp.abs(plain.network.decoder.blocks.down.out_of).max()) > 0.01
    assert not any(np.any(np.asarray(gate)) for gate in three.expert.gates)
    # Then a step of Adam, which goes against the sign of the gradient by the learning rate.
    four, metrics = learn(method, problem, texts(), key=key, updates=4)
    assert np.asarray(metrics["gates_learn"]).tolist() == [0.0, 0.0, 0.0, 1.0]
    for one, other in zip(
        jax.tree.leaves(four.expert.adapted), jax.tree.leaves(three.expert.adapted)
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    data = texts()

    @eqx.filter_jit
    def loss(gates):
        expert = eqx.tree_at(lambda e: e.gates, three.expert, gates)
        chances = jax.nn.log_softmax(expert.logits(data.tokens)[:, :-1])
        own = jnp.take_along_axis(chances, data.tokens[:, 1:, None], axis=-1)[..., 0]
        told = jnp.asarray(data.response)[:, 1:]
        return -jnp.sum(jnp.where(told, own, 0.0)) / jnp.sum(told)

    for found, gradient in zip(four.expert.gates, jax.jit(jax.grad(loss))(three.expert.gates)):
        large = np.abs(gradient) > 1e-5
        assert large.mean() > 0.5
        np.testing.assert_allclose(
            np.asarray(found)[large], -0.01 * np.sign(gradient)[large], rtol=0.02
        )


def test_a_decoder_is_given_adapters_on_all_matrices_and_others_are_refused(key):
    state = PHATGOOSE(expert_rank=3).init(TokenProblem(DENSE), key=key)
    assert [gate.shape for gate in state.expert.gates] == [(2, 4)] * 7
    assert state.expert.adapted.decoder.blocks.up.into.shape == (2, 4, 3)
    with pytest.raises(SpecificationError, match="PrefixTable is no decoder"):
        PHATGOOSE().init(TokenProblem(PrefixTable(3, 3)), key=key)
