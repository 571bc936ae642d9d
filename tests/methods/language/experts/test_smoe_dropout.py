"""Random routers that ask more and more experts."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.methods.language.experts.smoe_dropout import SMoEDropout
from headwater.networks.decoders.changes import with_experts, with_one_expert, with_router

from ..exact_texts import learn
from .tiny import DENSE, RATES, expect_the_steps_of_sft, texts


@pytest.mark.equivalence
def test_equal_copies_that_are_all_asked_are_supervised_fine_tuning(key):
    """Each copy gets its share of the gradient, of which Adam does not see the size."""
    copies = with_experts(DENSE, 2, key=key)
    even = with_router(copies, weight=jnp.zeros_like(copies.blocks.router.weight))
    method = SMoEDropout(first_active=2, **RATES)
    second = jnp.ones(2, jnp.int32)
    expect_the_steps_of_sft(
        method, TokenProblem(even), key, lambda network: with_one_expert(network, second)
    )


@pytest.mark.oracle
def test_more_and_more_experts_are_asked_and_routers_stay(key):
    method = SMoEDropout(num_experts=4, first_active=1, ramp_updates=6.0, **RATES)
    problem = TokenProblem(DENSE)
    first = method.init(problem, key=key).network
    state, metrics = learn(method, problem, texts(), key=key, updates=8)
    # 1 + round(3 t / 6), halves to the even side.
    np.testing.assert_array_equal(metrics["active_experts"], [1, 1, 2, 3, 3, 3, 4, 4])
    network = method.network(state)
    np.testing.assert_array_equal(network.blocks.router.active, [4, 4])
    router = first.blocks.router.weight
    # Drawn in another program, which may round otherwise.
    np.testing.assert_allclose(network.blocks.router.weight, router, atol=1e-6)
    assert np.abs(np.asarray(network.blocks.up.weight - first.blocks.up.weight)).max() > 0.01


def test_more_experts_than_there_are_cannot_be_asked(key):
    with pytest.raises(SpecificationError, match="first_active = 3 of 2 experts cannot be asked"):
        SMoEDropout(num_experts=2, first_active=3).init(TokenProblem(DENSE), key=key)
