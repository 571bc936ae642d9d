"""Behavioural cloning against NumPy and on problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.imitation.bc import BC

from ..numpy_twin import (
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
from ..small_problems import (
    BANDIT_SETTINGS,
    COUNTS,
    PROBE,
    REWARDS,
    arms,
    bandit,
    best_action,
    expect_mean_logged_action,
    greedy,
    trained,
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


@pytest.mark.parity
@pytest.mark.parametrize(
    ("discrete", "likelihood", "loss"),
    [
        (False, False, _squared_error),
        (True, False, _cross_entropy),
        (False, True, _squashed_normal),
    ],
)
def test_three_updates(discrete, likelihood, loss):
    method = BC(learning_rate=1e-2, stochastic=likelihood, hidden_sizes=(8, 8))
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


@pytest.mark.parity
def test_log_probability_of_a_deterministic_policy_is_that_of_its_noise():
    method = BC(exploration_noise=0.3, hidden_sizes=(8,))
    state = begin(method, False)
    data = batch(0, False)
    observation, action = data.observation[0], data.action[0]
    centre, _ = method.act(state, observation, key=jax.random.key(3), explore=False)
    difference = np.asarray(action, np.float64) - np.asarray(centre, np.float64)
    expected = np.sum(-0.5 * (difference / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi)))
    ours = method.log_probability(state, observation, action)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.oracle
def test_it_falls_back_on_the_mean_logged_action(key):
    expect_mean_logged_action(BC(**BANDIT_SETTINGS), key)


def _expert(data):
    return eqx.tree_at(lambda d: d.action, data, best_action(data.observation))


@pytest.mark.oracle
def test_cloning_recovers_a_deterministic_policy(key):
    problem, data = bandit(key)
    method = BC(**BANDIT_SETTINGS)
    state = trained(method, problem, _expert(data), 600)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.02)


@pytest.mark.oracle
def test_cloning_recovers_a_density(key):
    problem, data = bandit(key)
    noise = jax.random.normal(key, data.action.shape)
    noisy = jnp.tanh(data.observation + (0.3 + 0.2 * data.observation) * noise)
    data = eqx.tree_at(lambda d: d.action, data, noisy)
    method = BC(stochastic=True, **BANDIT_SETTINGS)
    state = trained(method, problem, data, 800)
    policy = state.actor(PROBE)
    np.testing.assert_allclose(policy.mean, PROBE, atol=0.1)
    np.testing.assert_allclose(jnp.exp(policy.log_std), 0.3 + 0.2 * PROBE, atol=0.06)


@pytest.mark.oracle
def test_cloning_recovers_frequencies():
    problem, data = arms(COUNTS, REWARDS)
    method = BC(learning_rate=3e-3, hidden_sizes=(32,))
    state = trained(method, problem, data, 1500)
    probability = jax.nn.softmax(state.actor(jnp.ones(1)).logits)
    np.testing.assert_allclose(probability, COUNTS / COUNTS.sum(), atol=5e-3)
