"""INPO against NumPy, and on preferences that go round in circles."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import (
    TablePreference,
    every_response,
)
from headwater.evaluation.exact_tokens import log_policy
from headwater.evaluation.preferences import duality_gap
from headwater.methods.language.rewards.inpo import INPO
from headwater.networks.token_table import LogLinearResponses, PrefixTable
from headwater.runs.learn import learn
from headwater.sources.language.completion_pairs import JudgedPairs
from headwater.sources.language.completions import SampledCompletions

from ..text_twin import CONTEXT, DATA, VOCABULARY, moved, response_log_probability


@pytest.mark.parity
def test_inpo_regresses_on_a_mixture_of_reference_and_iterate(key):
    method = INPO(kl_weight=0.1, iterate_weight=0.4, updates_per_round=2)
    task, network, state = moved(method)
    iterate: Any = PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(5))
    state = eqx.tree_at(lambda s: s.iterate, state, iterate)
    state, metrics = method.update(state, DATA, key=key)

    def gap(table):
        return response_log_probability(table, DATA.chosen) - response_log_probability(
            table, DATA.rejected
        )

    target = 0.25 * gap(task.network) + 0.75 * gap(iterate) + 1 / 0.8
    expected = ((gap(network) - target) ** 2).mean()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    # The round has two updates: only after the second the iterate becomes the network.
    assert eqx.tree_equal(state.iterate, iterate)
    assert float(optax.tree.norm(state.tuned.optimiser)) > 1.0
    state, _ = method.update(state, DATA, key=key)
    assert eqx.tree_equal(state.iterate, method.network(state))
    assert float(optax.tree.norm(state.tuned.optimiser)) == 0.0
    assert method.exploring_network(state) is state.iterate


@pytest.mark.oracle
def test_inpo_on_sampled_pairs_closes_the_gap(key):
    """Preferences that go round in circles, for which a reward has no answer."""
    margin = 2.0 * jnp.asarray([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    preference = jax.nn.sigmoid(margin)[None]
    network = LogLinearResponses(jnp.eye(3), jnp.asarray([1.5, 0.0, 0.0]))
    one_token = every_response(3, 1)
    reference = log_policy(network, one_token)
    method = INPO(kl_weight=0.1, iterate_weight=0.6, updates_per_round=40, learning_rate=0.05)
    written = SampledCompletions(one_token.prompts, rows=128, samples=2, new_tokens=1)
    source = JudgedPairs(written, TablePreference(preference, 3))
    state = jax.jit(lambda: learn(method, TokenProblem(network), source, 1000, key=key).state)()
    gaps = [
        float(duality_gap(log_policy(one, one_token), reference, preference, 0.1)[0])
        for one in (network, state.iterate)
    ]
    assert gaps[0] > 0.1 and gaps[1] < 0.01
