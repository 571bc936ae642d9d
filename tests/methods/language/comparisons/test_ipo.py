"""IPO against NumPy and TRL, and on tables where the best policy is known."""

import dataclasses

import pytest

from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.comparisons.ipo import IPO
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES, compared, learn
from ..text_twin import DATA, length, moved, ratios
from ..trl_losses import expect_loss_of_dpo_trainer


@pytest.mark.parity
@pytest.mark.parametrize("normalise", [False, True])
def test_ipo_adds_up_or_averages(normalise, key):
    method = IPO(beta=0.3, normalise_lengths=normalise)
    task, network, state = moved(method)
    _, metrics = method.update(state, DATA, key=key)
    won, lost = (ratios(network, task.network, d) for d in (DATA.chosen, DATA.rejected))
    if normalise:
        won, lost = won / length(DATA.chosen), lost / length(DATA.rejected)
    expected = ((won - lost - 1 / 0.6) ** 2).mean()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parity
def test_it_has_the_loss_of_trl(key):
    expect_loss_of_dpo_trainer(IPO(beta=0.3), "ipo", key)


@pytest.mark.oracle
def test_ipo_spreads_certain_winners_by_known_gaps(key):
    """Three responses in a known order: neighbours end 1/(3τ) apart, from any reference."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = compared([(0, 4), (4, 8), (0, 8)])
    method = IPO(beta=0.25, normalise_lengths=False, learning_rate=0.05, decay_updates=400.0)
    state, _ = learn(method, task, data, key=key, updates=400)
    ratio = log_policy(state.network, RESPONSES) - log_policy(task.network, RESPONSES)
    gaps = [float(ratio[0, i] - ratio[0, j]) for i, j in ((0, 4), (4, 8))]
    assert gaps == pytest.approx([4 / 3, 4 / 3], abs=1e-3)
    method = dataclasses.replace(method, normalise_lengths=True)
    state, _ = learn(method, task, data, key=key, updates=400)
    ratio = log_policy(state.network, RESPONSES) - log_policy(task.network, RESPONSES)
    # Responses have two tokens.
    assert float(ratio[0, 0] - ratio[0, 8]) == pytest.approx(2 * 8 / 3, abs=1e-2)
