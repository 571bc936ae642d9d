"""ε-greedy against ridge regression that is solved from scratch in float64."""

import numpy as np
import pytest

from headwater.methods.bandits.epsilon_greedy import EpsilonGreedy

from .rounds import LINEAR_PROBLEMS, one_best, probabilities, ridge_twin, rounds


@pytest.mark.parity
@pytest.mark.parametrize("problem", LINEAR_PROBLEMS[:2], ids=str)
def test_it_mixes_the_best_arm_with_all(problem):
    data = rounds(problem, 100)
    found = probabilities(EpsilonGreedy(exploration_rate=0.2), problem, data)
    np.testing.assert_allclose(found[0], 0.25, rtol=1e-6)
    for i, (mean, _) in enumerate(ridge_twin(problem, data, 1.0)):
        if np.diff(np.sort(mean))[-1] > 1e-5:
            np.testing.assert_allclose(found[i], 0.05 + 0.8 * one_best(mean), atol=1e-6)
