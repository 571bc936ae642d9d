"""Learning with even loads: one expert is none, and a router in one corner comes out of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.methods.language.experts.switch import Switch
from headwater.networks.decoders.changes import with_experts, with_one_expert, with_router
from headwater.networks.token_table import PrefixTable

from ..exact_texts import learn
from .tiny import DENSE, RATES, expect_the_steps_of_sft, texts


@pytest.mark.equivalence
def test_with_one_expert_it_is_supervised_fine_tuning(key):
    first = jnp.zeros(2, jnp.int32)
    method = Switch(num_experts=1, balance_weight=1.0, **RATES)
    expect_the_steps_of_sft(
        method, TokenProblem(DENSE), key, lambda network: with_one_expert(network, first)
    )


@pytest.mark.oracle
def test_loads_become_even_where_that_is_all_that_counts(key):
    network = with_experts(DENSE, 4, key=key, expert_weights="all")
    # All tokens begin at the first expert, or nearly so.
    weight = network.blocks.router.weight
    skewed = weight + jnp.broadcast_to(jnp.asarray([2.0, 0.4, -0.6, -1.0]), weight.shape)
    method = Switch(balance_weight=100.0, learning_rate=0.03)
    _, metrics = learn(
        method, TokenProblem(with_router(network, weight=skewed)), texts(), key=key, updates=60
    )
    assert metrics["balance_loss"][0] > 1.3
    np.testing.assert_allclose(metrics["balance_loss"][-10:], 1.0, atol=0.1)
    np.testing.assert_array_equal(metrics["dropped_share"], 0.0)


def test_networks_that_are_no_decoders_are_refused(key):
    with pytest.raises(SpecificationError, match="Switch learns decoders with experts, and Prefix"):
        Switch().init(TokenProblem(PrefixTable(3, 4)), key=key)
