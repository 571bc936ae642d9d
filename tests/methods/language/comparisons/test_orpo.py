"""ORPO against NumPy, and where the odds of certainty are infinite."""

from types import SimpleNamespace

import equinox as eqx
import jax
import numpy as np
import pytest

from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.comparisons.orpo import ORPO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES, compared, learn
from ..text_twin import (
    DATA,
    first_gradient,
    length,
    moved,
    replaced,
    response_log_probability,
    slopes,
    update,
)


def orpo_loss(network, weight):
    """The paper's equations 4 to 7, in float64."""
    won = response_log_probability(network, DATA.chosen) / length(DATA.chosen)
    lost = response_log_probability(network, DATA.rejected) / length(DATA.rejected)
    odds = [np.exp(x) / (1.0 - np.exp(x)) for x in (won, lost)]
    compared = np.log(1.0 + odds[1] / odds[0]).mean()
    cloned = -response_log_probability(network, DATA.chosen).sum() / length(DATA.chosen).sum()
    return cloned + weight * compared, cloned, np.log(odds[0] / odds[1]).mean()


@pytest.mark.parity
def test_orpo_has_the_loss_and_the_gradient_of_the_paper(key):
    _, network, state = moved(ORPO())
    after, metrics = update(ORPO(beta=0.7, max_gradient_norm=np.inf), state, DATA, key)
    loss, cloned, ratio = orpo_loss(network, 0.7)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["chosen_negative_log_probability"]) == pytest.approx(cloned, rel=1e-5)
    assert float(metrics["log_odds_ratio"]) == pytest.approx(ratio, rel=1e-4)
    expected = slopes(lambda t: orpo_loss(SimpleNamespace(table=t), 0.7)[0], network.table)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(first_gradient(after), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.equivalence("SFT")
def test_without_its_weight_it_is_fine_tuning(key):
    results = []
    for method, data in ((ORPO(beta=0.0), DATA), (SFT(), DATA.chosen)):
        _, _, state = moved(method)
        results.append(first_gradient(update(method, state, data, key)[0]))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.oracle
def test_what_was_rejected_loses_without_a_reference(key):
    """Fine-tuning alone leaves two responses that were never chosen as they stand to each other."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = compared([(0, 4), (0, 4)])
    gaps = {}
    for weight in (0.0, 1.0):
        method = ORPO(beta=weight, learning_rate=0.05)
        state, metrics = learn(method, task, data, key=key, updates=60)
        assert state.frozen is None
        found = log_policy(state.network, RESPONSES)[0]
        gaps[weight] = float(found[0] - found[4])
        assert float(metrics["accuracy"][-1]) == 1.0
    assert gaps[1.0] > gaps[0.0] + 0.5


def test_certain_responses_leave_everything_finite(key):
    method = ORPO()
    _, network, state = moved(method)
    certain = eqx.tree_at(lambda n: n.table, network, 1e4 * network.table)
    after, metrics = update(method, replaced(state, certain), DATA, key)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after.network.table, metrics)))
