"""REINFORCE with running statistics that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.rewards.reinforce import Reinforce
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES


@pytest.mark.oracle
def test_reinforce_standardises_by_what_it_has_seen(key):
    """Rewards of 2 and then of 4 have known running means; the gradient is the advantage's."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = Reinforce(kl_weight=0.0, statistics_rate=0.5, max_gradient_norm=1e9)
    data = jax.tree.map(lambda x: x[0], RESPONSES.data)
    state = method.init(task, key=key)
    two = Completions(data.tokens, data.response, jnp.full(9, 2.0))
    four = Completions(data.tokens, data.response, jnp.full(9, 4.0))
    update = jax.jit(lambda state, data: method.update(state, data, key=key))
    state, metrics = update(state, two)
    assert float(metrics["baseline"]) == pytest.approx(2.0)
    for moved, first in zip(jax.tree.leaves(state.tuned.network), jax.tree.leaves(task.network)):
        np.testing.assert_array_equal(moved, first)
    state, metrics = update(state, four)
    # Weights 1/4 and 1/2 of rewards 2 and 4.
    mean, square = (0.5 * 0.5 * 2 + 0.5 * 4) / 0.75, (0.25 * 4 + 0.5 * 16) / 0.75
    assert float(metrics["baseline"]) == pytest.approx(mean)
    advantage = (4.0 - mean) / (np.sqrt(square - mean**2) + 1e-4)
    own = log_policy(task.network, RESPONSES)[0]
    assert float(metrics["loss"]) == pytest.approx(-advantage * float(jnp.mean(own)), rel=1e-4)
