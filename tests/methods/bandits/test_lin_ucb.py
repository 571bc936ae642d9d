"""LinUCB against ridge regression that is solved from scratch in float64."""

import jax
import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.methods.bandits.lin_ucb import LinUCB
from headwater.parts.bandits.linear_arms import estimates, learn_weights, no_weights

from .rounds import LINEAR_PROBLEMS, one_best, probabilities, ridge_twin, rounds


@pytest.mark.parity
@pytest.mark.parametrize("problem", LINEAR_PROBLEMS, ids=str)
def test_it_pulls_what_ridge_regression_says(problem):
    data = rounds(problem, 200)
    found = probabilities(LinUCB(bonus_scale=0.7, ridge=0.5), problem, data)
    for i, (mean, variance) in enumerate(ridge_twin(problem, data, 0.5)):
        index = mean + 0.7 * np.sqrt(variance)
        best, second = np.sort(index)[::-1][:2]
        if best - second > 1e-4:
            np.testing.assert_allclose(found[i], one_best(index), atol=1e-6, err_msg=f"round {i}")
        else:
            # Arms that tie share, whichever side of rounding they are on.
            assert np.all(found[i][index < best - 2e-4] == 0.0)


@pytest.mark.parity
def test_twenty_thousand_pulls_do_not_wear_the_inverse_down():
    problem = Arms(2, 5)
    data = rounds(problem, 20_000)
    state = jax.jit(learn_weights)(no_weights(problem, 1.0), data)[0]
    context, arm = np.asarray(data.context, np.float64), np.asarray(data.arm)
    for a in range(2):
        own = context[arm == a]
        covariance = np.eye(5) + own.T @ own
        weights = np.linalg.solve(covariance, own.T @ np.asarray(data.reward, np.float64)[arm == a])
        np.testing.assert_allclose(state.weights[a], weights, atol=2e-5)
        exact = np.linalg.inv(covariance)
        off = np.linalg.norm(np.asarray(state.inverse[a], np.float64) - exact, 2)
        assert off < 1e-3 * np.linalg.norm(exact, 2), off
    found = estimates(state, data.context[0], data.features[0])
    assert np.all(np.asarray(found.variance) > 0.0)
