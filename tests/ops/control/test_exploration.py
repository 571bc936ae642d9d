"""Noise on actions: its size, its bounds and its probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.ops.control.exploration import (
    epsilon_greedy,
    epsilon_greedy_log_probability,
    smoothed_action,
)


def test_smoothing_noise_is_normal_inside_its_bound_and_the_box(key):
    action = jnp.zeros((50_000, 1))
    drawn = np.asarray(smoothed_action(action, key=key, noise=0.2, largest=0.5))
    assert abs(drawn.mean()) < 0.005
    np.testing.assert_allclose(drawn.std(), 0.2, rtol=0.03)
    assert np.abs(drawn).max() == 0.5
    edge = smoothed_action(action + 0.9, key=key, noise=0.2, largest=0.5)
    assert np.max(edge) == 1.0
    assert np.min(edge) == np.float32(0.9) - np.float32(0.5)


def test_no_noise_changes_nothing(key):
    action = jnp.asarray([[0.3, -0.7]])
    same = smoothed_action(action, key=key, noise=0.0, largest=0.5)
    np.testing.assert_array_equal(same, action)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_takes_each_action_as_often_as_it_says(epsilon, key):
    values = jnp.asarray([0.1, 2.0, -1.0, 0.5])
    draw = jax.vmap(lambda k: epsilon_greedy(values, epsilon, key=k))
    drawn = np.asarray(draw(jax.random.split(key, 20_000)))
    frequency = np.bincount(drawn, minlength=4) / drawn.size
    expected = epsilon / 4 + (1 - epsilon) * np.eye(4)[1]
    np.testing.assert_allclose(frequency, expected, atol=0.012)
    said = [
        epsilon_greedy_log_probability(values, jnp.asarray(a, jnp.int32), epsilon) for a in range(4)
    ]
    np.testing.assert_allclose(np.exp(said), expected, rtol=1e-5)
