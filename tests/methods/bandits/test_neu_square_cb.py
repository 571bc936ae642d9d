"""NeuSquareCB: one step and the distribution against NumPy in float64."""

import jax
import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.methods.bandits.neu_square_cb import NeuSquareCB

from .networks import blocks, forward, gradients
from .rounds import rounds


@pytest.mark.parity
@pytest.mark.parametrize("problem", [Arms(3, 2), Arms(3, 2, 2)], ids=["contexts", "features"])
def test_a_step_and_the_distribution(problem):
    method, key = NeuSquareCB(hidden_sizes=(5,), learning_rate=0.2), jax.random.key(0)
    data = rounds(problem, 6)
    before = method.init(problem, key=key)
    after, metrics = jax.jit(method.update)(before, data, key=key)
    inputs, target = blocks(problem, data), 1.0 - np.asarray(data.reward, np.float64)
    own = inputs[np.arange(6), np.asarray(data.arm)]
    output = forward(before.losses.network, own)
    np.testing.assert_allclose(metrics["loss"], np.mean((output - target) ** 2), rtol=1e-5)
    slopes = gradients(before.losses.network, own, 2.0 * (output - target) / 6)
    for new, old, slope in zip(
        jax.tree.leaves(after.losses.network), jax.tree.leaves(before.losses.network), slopes
    ):
        np.testing.assert_allclose(new, np.asarray(old, np.float64) - 0.2 * slope, atol=1e-5)
    found = method.probabilities(after, data.context[0], data.features[0], key=key, explore=True)
    losses = forward(after.losses.network, inputs[0])
    best = np.argmin(losses)
    shares = 1.0 / (3 + 10.0 * np.sqrt(6) * (losses - losses[best]))
    shares[best] = 0.0
    shares[best] = 1.0 - shares.sum()
    np.testing.assert_allclose(found, shares, atol=1e-4)
