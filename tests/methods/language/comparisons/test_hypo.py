"""HyPO against NumPy, and against the exact divergence."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import ComparisonsAndCompletions
from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import divergence, log_policy
from headwater.methods.language.comparisons.hypo import HyPO
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.generation import generate

from ..exact_texts import RESPONSES, compared
from ..text_twin import (
    DATA,
    given_prompts,
    log_sigmoid,
    moved,
    ratios,
    response_log_probability,
    slopes,
    some_texts,
)


@pytest.mark.parity
def test_hypo_adds_the_divergence_on_its_own_texts(key):
    """The whole gradient's norm, with the sampled part's by finite differences of NumPy's loss."""
    method = HyPO(beta=0.3, kl_weight=0.5)
    task, network, state = moved(method)
    own = given_prompts(some_texts(2, 3, seed=9), jnp.asarray([[0], [1]]))
    _, metrics = method.update(state, ComparisonsAndCompletions(DATA, own), key=key)
    margin = ratios(network, task.network, DATA.chosen)
    margin = 0.3 * (margin - ratios(network, task.network, DATA.rejected))
    assert float(metrics["loss"]) == pytest.approx(-log_sigmoid(margin).mean(), rel=1e-5)
    ratio = ratios(network, task.network, own)
    assert float(metrics["divergence"]) == pytest.approx(ratio.mean(), rel=1e-4)
    weight = ratio - (ratio.sum(1, keepdims=True) - ratio) / 2

    def loss(table):
        other = SimpleNamespace(table=table)
        margin = ratios(other, task.network, DATA.chosen)
        margin = 0.3 * (margin - ratios(other, task.network, DATA.rejected))
        return (
            -log_sigmoid(margin).mean()
            + 0.5 * (weight * response_log_probability(other, own)).mean()
        )

    norm = np.linalg.norm(slopes(loss, network.table))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-3)


@pytest.mark.oracle
def test_hypos_samples_have_the_gradient_of_the_divergence(key):
    """On average over many fresh texts, where DPO's loss is switched off."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    other = PrefixTable(3, 3, key=jax.random.fold_in(key, 1))
    reference = log_policy(task.network, RESPONSES)
    # Descending by exactly the gradient, so that it can be read off the weights' change.
    method = HyPO(beta=0.0, kl_weight=1.0)

    def norm(key):
        state = eqx.tree_at(lambda s: s.network, method.init(task, key=key), other)
        own = generate(other, RESPONSES.prompts, 2, key=key, samples=20_000)
        data = ComparisonsAndCompletions(compared([(0, 1)]), own)
        return method.update(state, data, key=key)[1]

    metrics = jax.jit(norm)(key)

    def exact(network):
        return jnp.sum(divergence(log_policy(network, RESPONSES), reference))

    gradient = jax.jit(jax.grad(exact))(other)
    assert float(metrics["gradient_norm"]) == pytest.approx(
        float(jnp.linalg.norm(gradient.table)), rel=0.05
    )
    assert float(metrics["divergence"]) == pytest.approx(float(exact(other)), rel=0.05)
