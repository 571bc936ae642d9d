"""LinTS: how often each arm is the best under the posterior, by NumPy's own draws in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.methods.bandits.lin_ts import LinTS

from .rounds import rounds


@pytest.mark.parity
@pytest.mark.parametrize("problem", [Arms(4, 3), Arms(4, 0, 3)], ids=["own", "shared"])
def test_frequencies_are_those_of_the_posterior(problem):
    data = rounds(problem, 30)
    method = LinTS(noise_std=0.8, ridge=0.5, num_samples=20_000)
    state = method.init(problem, key=jax.random.key(0))
    state = jax.jit(method.update)(state, data, key=jax.random.key(0))[0]
    context, features = data.context[0], data.features[0]
    found = jax.jit(lambda key: method.probabilities(
        state, context, features, key=key, explore=True
    ))(jax.random.key(1))  # fmt: skip
    draw = np.random.default_rng(0)
    arm, reward = np.asarray(data.arm), np.asarray(data.reward, np.float64)
    shared = problem.feature_size > 0
    inputs = np.asarray(data.features if shared else data.context, np.float64)
    if shared:
        inputs = inputs[np.arange(len(arm)), arm]
    worth = np.zeros((20_000, 4))
    for group in range(1 if shared else 4):
        own = inputs if shared else inputs[arm == group]
        earned = reward if shared else reward[arm == group]
        covariance = 0.5 * np.eye(3) + own.T @ own
        mean = np.linalg.solve(covariance, own.T @ earned)
        theta = draw.multivariate_normal(mean, 0.64 * np.linalg.inv(covariance), 20_000)
        if shared:
            worth = theta @ np.asarray(features, np.float64).T
        else:
            worth[:, group] = theta @ np.asarray(context, np.float64)
    expected = np.bincount(np.argmax(worth, axis=1), minlength=4) / 20_000
    # Both sides are frequencies of as many draws: five standard errors of their difference.
    np.testing.assert_allclose(found, expected, atol=5.0 * np.sqrt(0.5 / 20_000))
    greedy = method.probabilities(state, context, features, key=jax.random.key(0), explore=False)
    assert float(jnp.max(greedy)) == 1.0
