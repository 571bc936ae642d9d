"""EXP4 against exponential weights over experts in float64."""

import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.methods.bandits.exp4 import EXP4

from .rounds import probabilities, rounds, rows


@pytest.mark.parity
def test_it_mixes_the_advice_of_experts():
    problem = Arms(4, 2, 5)
    data = rounds(problem, 200)
    found = probabilities(EXP4(rate_scale=2.0), problem, data)
    losses = np.zeros(5)
    for i, (_, features, arm, reward, propensity) in enumerate(rows(data)):
        advice = np.maximum(features, 0.0)
        for expert in range(5):
            total = advice[:, expert].sum()
            advice[:, expert] = advice[:, expert] / total if total > 0 else 0.25
        rate = 2.0 * np.sqrt(np.log(5) / (max(i, 1) * 4))
        weights = np.exp(-rate * (losses - losses.min()))
        expected = advice @ (weights / weights.sum())
        np.testing.assert_allclose(found[i], expected, atol=1e-5, err_msg=f"round {i}")
        losses += advice[arm] * (1.0 - reward) / propensity
