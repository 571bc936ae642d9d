"""BC against its twin in NumPy."""

import jax
import numpy as np
import pytest

from headwater.methods.control.imitation.bc import BC

from .numpy_twin import (
    ACTION,
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_gradient,
    expect_same,
    leaves,
    standardised,
    update,
)


def _squared_error(output, action):
    prediction = np.tanh(output)
    difference = prediction - action
    slope = 2 * difference / difference.size * (1 - prediction**2)
    return np.mean(difference**2), slope


def _cross_entropy(output, action):
    probability = np.exp(output - output.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    rows = np.arange(ROWS)
    slope = probability.copy()
    slope[rows, action] -= 1
    return -np.mean(np.log(probability[rows, action])), slope / ROWS


def _squashed_normal(output, action):
    mean, log_std = output[:, :ACTION], output[:, ACTION:]
    assert np.all(np.abs(log_std) < 2)
    raw = np.arctanh(action)
    noise = (raw - mean) / np.exp(log_std)
    log_density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)
    slope = np.concatenate([-noise / np.exp(log_std), 1 - noise**2], axis=-1)
    return -np.mean(log_density.sum(-1)), slope / ROWS


@pytest.mark.parametrize(
    ("discrete", "likelihood", "loss"),
    [
        (False, False, _squared_error),
        (True, False, _cross_entropy),
        (False, True, _squashed_normal),
    ],
)
def test_three_updates(discrete, likelihood, loss):
    method = BC(learning_rate=1e-2, likelihood=likelihood, widths=(8, 8))
    state = begin(method, discrete)
    network = Perceptron(leaves(state.actor))
    adam = Adam(network.parameters, 1e-2)
    for i in range(3):
        data = batch(i, discrete)
        state, metrics = update(method, state, data, key=jax.random.key(i))
        action = np.asarray(data.action) if discrete else np.asarray(data.action, np.float64)
        expected, slope = loss(network.forward(standardised(data.observation)), action)
        adam.step(network.backward(slope)[0])
        np.testing.assert_allclose(metrics["actor_loss"], expected, rtol=1e-5)
    expect_gradient(state.optimiser, adam)
    expect_same(state.actor, network.parameters)


def test_log_probability_of_a_deterministic_policy_is_that_of_its_noise():
    method = BC(exploration_noise=0.3, widths=(8,))
    state = begin(method, False)
    data = batch(0, False)
    observation, action = data.observation[0], data.action[0]
    centre, _ = method.act(state, observation, key=jax.random.key(3), explore=False)
    difference = np.asarray(action, np.float64) - np.asarray(centre, np.float64)
    expected = np.sum(-0.5 * (difference / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi)))
    ours = method.log_probability(state, observation, action)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
