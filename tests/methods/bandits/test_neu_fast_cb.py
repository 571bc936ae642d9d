"""NeuFastCB: one step and the distribution against NumPy in float64."""

import jax
import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.methods.bandits.neu_fast_cb import NeuFastCB

from .networks import blocks, forward, gradients
from .rounds import rounds


@pytest.mark.parity
def test_a_step_and_the_distribution():
    problem, key = Arms(3, 2), jax.random.key(0)
    method = NeuFastCB(hidden_sizes=(5,), learning_rate=0.2)
    data = rounds(problem, 6)
    before = method.init(problem, key=key)
    after, metrics = jax.jit(method.update)(before, data, key=key)
    inputs, target = blocks(problem, data), 1.0 - np.asarray(data.reward, np.float64)
    own = inputs[np.arange(6), np.asarray(data.arm)]
    predicted = 1.0 / (1.0 + np.exp(-forward(before.logits.network, own)))
    loss = -target * np.log(predicted) - (1.0 - target) * np.log(1.0 - predicted)
    np.testing.assert_allclose(metrics["loss"], loss.mean(), rtol=1e-5)
    slopes = gradients(before.logits.network, own, (predicted - target) / 6)
    for new, old, slope in zip(
        jax.tree.leaves(after.logits.network), jax.tree.leaves(before.logits.network), slopes
    ):
        np.testing.assert_allclose(new, np.asarray(old, np.float64) - 0.2 * slope, atol=1e-5)
    found = method.probabilities(after, data.context[0], data.features[0], key=key, explore=True)
    losses = 1.0 / (1.0 + np.exp(-forward(after.logits.network, inputs[0])))
    best = np.argmin(losses)
    shares = losses[best] / (3 * losses[best] + 10.0 * np.sqrt(6) * (losses - losses[best]))
    shares[best] = 0.0
    shares[best] = 1.0 - shares.sum()
    np.testing.assert_allclose(found, shares, atol=1e-4)
