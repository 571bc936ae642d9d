"""EXP3 against exponential weights in float64."""

import jax
import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.methods.bandits.exp3 import EXP3

from .rounds import probabilities, rounds, rows


@pytest.mark.parity
@pytest.mark.parametrize("implicit", [0.0, 0.1])
def test_it_weighs_estimated_losses(implicit):
    problem = Arms(4, low=-1.0, high=2.0)
    data = rounds(problem, 200)
    method = EXP3(rate_scale=1.5, implicit_exploration=implicit)
    found = probabilities(method, problem, data)
    losses = np.zeros(4)
    for i, (_, _, arm, reward, propensity) in enumerate(rows(data)):
        weights = np.exp(-1.5 * np.sqrt(np.log(4) / (max(i, 1) * 4)) * (losses - losses.min()))
        np.testing.assert_allclose(found[i], weights / weights.sum(), atol=1e-5)
        losses[arm] += (2.0 - reward) / 3.0 / (propensity + implicit)


@pytest.mark.oracle
def test_estimates_are_unbiased():
    """The losses of all arms, weighted by how probably each is pulled, are the true ones."""
    true, chosen = np.asarray([0.1, 0.6, 0.9]), np.asarray([0.2, 0.5, 0.3], np.float32)
    method, problem, key = EXP3(), Arms(3), jax.random.key(0)
    expected = np.zeros(3)
    for arm in range(3):
        row = Pulls(
            np.zeros((1, 0), np.float32),
            np.zeros((1, 3, 0), np.float32),
            np.asarray([arm], np.int32),
            np.asarray([1.0 - true[arm]], np.float32),
            chosen[[arm]],
        )
        state = method.update(method.init(problem, key=key), row, key=key)[0]
        expected += chosen[arm] * np.asarray(state.losses, np.float64)
    np.testing.assert_allclose(expected, true, rtol=1e-5)
