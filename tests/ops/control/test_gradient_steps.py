"""Steps, averages and schedules by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from headwater.ops.control.gradient_steps import begin, cosine_decay, descend, polyak


def test_adam_by_hand():
    optimiser = optax.adam(0.1)
    parameters = {"w": jnp.asarray([1.0, -2.0])}
    state = begin(optimiser, parameters)
    w, m, v = np.asarray([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 6):
        gradient = 2.0 * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        gradients = {"w": 2.0 * parameters["w"]}
        parameters, state = descend(optimiser, gradients, state, parameters)
        np.testing.assert_allclose(parameters["w"], w, rtol=1e-5)


def test_polyak_moves_by_its_rate():
    target, online = {"a": jnp.asarray([0.0, 4.0])}, {"a": jnp.asarray([1.0, 2.0])}
    assert polyak(target, online, 0.25)["a"].tolist() == [0.25, 3.5]
    assert polyak(target, online, 0.0)["a"].tolist() == [0.0, 4.0]
    assert polyak(target, online, 1.0)["a"].tolist() == [1.0, 2.0]


def test_cosine_decay_falls_from_one_to_zero_and_stays():
    steps = jnp.asarray([0, 25, 50, 75, 100, 1000])
    expected = [1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5, 0.5 * (1 + np.cos(3 * np.pi / 4)), 0, 0]
    np.testing.assert_allclose(
        jax.vmap(lambda s: cosine_decay(s, 100.0))(steps), expected, atol=1e-6
    )
    assert jax.vmap(lambda s: cosine_decay(s, jnp.inf))(steps).tolist() == [1.0] * 6
