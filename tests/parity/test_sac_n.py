"""SAC-N and EDAC against their twins in NumPy."""

import jax
import numpy as np
import pytest

from headwater.methods.control.offline.edac import EDAC
from headwater.methods.control.offline.sac_n import SACN

from .numpy_twin import ACTION, CHOICES, ROWS, Perceptron, batch, problem, standardised, update
from .soft_twin import RATES, SoftTwin, columns

MEMBERS, ETA = 3, 0.7


def _before_the_critics(twin, state, metrics, columns_, key, wished, discrete=False):
    """Temperature, actor and target, in that order; returns the target."""
    s, _, r, terminal, following = columns_
    temperature_key, actor_key, critic_key = jax.random.split(key, 3)
    if discrete:
        p = twin.policy(s)
        entropy = -np.mean(np.sum(p * np.log(p), -1))
    else:
        entropy = -np.mean(twin.sample(s, twin.noise(temperature_key, ROWS))[1])
    twin.temperature_step(entropy, wished)
    np.testing.assert_allclose(metrics["temperature"], twin.temperature, rtol=1e-5)
    loss, _ = twin.actor_step(s, twin.noise(actor_key, ROWS))
    np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
    noise = twin.noise(jax.random.split(critic_key)[0], ROWS)
    return twin.target(r, terminal, following, noise)


@pytest.mark.parametrize("discrete", [False, True])
def test_three_updates_of_sac_n(discrete):
    method = SACN(widths=(8, 8), members=MEMBERS, normalise_observations=True, **RATES)
    state = method.init(problem(discrete), key=jax.random.key(1))
    twin = SoftTwin(state, discrete, log_std_range=(-5.0, 2.0))
    wished = 0.5 * np.log(CHOICES) if discrete else -ACTION
    for i in range(3):
        data, key = batch(i, discrete), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        c = columns(data, standardised)
        y = _before_the_critics(twin, state, metrics, c, key, wished, discrete)
        np.testing.assert_allclose(
            metrics["critic_loss"], twin.critic_step(c[0], c[1], y), rtol=1e-5
        )
    twin.expect(state)


def _similarity(networks, s, a):
    """The mean over rows of Σ_{i≠j} cos(g_i, g_j) / (N - 1), pair by pair."""
    directions = []
    for critic in networks:
        critic.forward(np.concatenate([s, a], -1))
        slope = critic.backward(np.ones((len(s), 1)))[1][:, -ACTION:]
        directions.append(slope / np.linalg.norm(slope, axis=-1, keepdims=True))
    total = sum(
        np.sum(directions[i] * directions[j], -1)
        for i in range(len(networks))
        for j in range(len(networks))
        if i != j
    )
    return np.mean(total) / (len(networks) - 1)


def test_two_updates_of_edac():
    method = EDAC(widths=(6, 6), members=MEMBERS, diversity=ETA, **RATES)
    state = method.init(problem(False), key=jax.random.key(1))
    twin = SoftTwin(state, log_std_range=(-5.0, 2.0))
    for i in range(2):
        data, key = batch(i, False), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        c = columns(data, lambda x: np.asarray(x, np.float64))
        s, a = c[:2]
        y = _before_the_critics(twin, state, metrics, c, key, -ACTION)
        np.testing.assert_allclose(
            metrics["similarity"], _similarity(twin.critics, s, a), rtol=1e-4
        )
        # The second derivative by differences: the twin knows only first ones.
        similar = [_differences(twin.critics, j, s, a) for j in range(MEMBERS)]
        for j, (critic, adam) in enumerate(zip(twin.critics, twin.critic_adams)):
            predicted = critic.forward(np.concatenate([s, a], -1))[:, 0]
            error = critic.backward(2 * (predicted - y)[:, None] / ROWS)[0]
            adam.step([g + ETA * h for g, h in zip(error, similar[j])])
        twin.move()
    twin.expect(state, tolerance=2e-4)


def _differences(networks, j, s, a, step=1e-6):
    """The derivative of the similarity by every parameter of critic `j`."""
    gradients = []
    for parameter in networks[j].parameters:
        gradient = np.zeros_like(parameter)
        for index in np.ndindex(parameter.shape):
            sides = []
            for sign in (1, -1):
                moved = Perceptron(networks[j].parameters)
                moved.parameters[len(gradients)][index] += sign * step
                others = [*networks[:j], moved, *networks[j + 1 :]]
                sides.append(_similarity(others, s, a))
            gradient[index] = (sides[0] - sides[1]) / (2 * step)
        gradients.append(gradient)
    return gradients
