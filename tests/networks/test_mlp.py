"""Perceptrons and ensembles against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.networks.control.critics import Critic, critics
from headwater.networks.mlp import MLP, Ensemble
from headwater.networks.normaliser import Normaliser


def _by_hand(network: MLP, x: np.ndarray, layer_norm, activation) -> np.ndarray:
    def norm(x, i):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * np.asarray(network.scales[i]) + np.asarray(network.offsets[i])

    for i, (weight, bias) in enumerate(zip(network.weights, network.biases)):
        x = x @ np.asarray(weight, np.float64) + np.asarray(bias, np.float64)
        if i < len(network.weights) - 1:
            x = norm(x, i) if layer_norm == "before" else x
            x = activation(x)
            x = norm(x, i) if layer_norm == "after" else x
    return x


@pytest.mark.parametrize("layer_norm", (None, "before", "after"))
@pytest.mark.parametrize(
    "name, activation", [("relu", lambda x: np.maximum(x, 0)), ("tanh", np.tanh)]
)
@pytest.mark.parametrize("initialiser", ("torch", "lecun", "orthogonal"))
def test_against_numpy(layer_norm, name, activation, initialiser, key):
    network = MLP(
        3, 2, (7, 5), key=key, activation=name, layer_norm=layer_norm, initialiser=initialiser
    )
    random = np.random.default_rng(0)
    # Scales that are not all one, so that they count.
    network = jax.tree.map(lambda x: x + jnp.asarray(random.normal(size=x.shape), x.dtype), network)
    x = random.normal(size=(4, 6, 3))
    found = network(jnp.asarray(x, jnp.float32))
    assert found.shape == (4, 6, 2)
    np.testing.assert_allclose(
        found, _by_hand(network, x, layer_norm, activation), rtol=2e-3, atol=2e-3
    )
    np.testing.assert_allclose(network(jnp.asarray(x[1, 2], jnp.float32)), found[1, 2], rtol=1e-4)


def test_first_weights_are_as_their_names_say(key):
    torch = MLP(16, 1, (200, 300), key=key, initialiser="torch")
    for layer in (torch.weights[0], torch.biases[0]):
        assert 0.2 < np.abs(layer).max() <= 0.25
    lecun = MLP(16, 1, (200, 300), key=key, initialiser="lecun")
    assert abs(float(jnp.std(lecun.weights[1])) * np.sqrt(200) - 1) < 0.02
    assert not np.any(lecun.biases[0])
    orthogonal = MLP(16, 1, (8, 8), key=key, initialiser="orthogonal")
    weight = np.asarray(orthogonal.weights[1])
    np.testing.assert_allclose(weight.T @ weight, 2.0 * np.eye(8), atol=1e-5)
    small = MLP(16, 5, (8,), key=key, last_scale=1e-3, bias=0.1)
    assert 0 < np.abs(small.weights[-1]).max() <= 1e-3
    assert np.abs(small.biases[-1]).max() <= 1e-3
    np.testing.assert_allclose(small.biases[0], 0.1)


def test_an_ensemble_is_its_members(key):
    ensemble = Ensemble(lambda k: MLP(3, 2, (5,), key=k), 4, key=key)
    x = jax.random.normal(key, (6, 3))
    together = ensemble(x)
    assert together.shape == (4, 6, 2)
    for i, k in enumerate(jax.random.split(key, 4)):
        np.testing.assert_allclose(together[i], MLP(3, 2, (5,), key=k)(x), rtol=1e-5, atol=1e-6)
    sums = ensemble.each(lambda network: jnp.sum(network(x)))
    np.testing.assert_allclose(sums, together.sum((1, 2)), rtol=1e-4)


def _spaces(action):
    zero, one = jnp.zeros(()), jnp.ones(())
    statistics = Statistics(
        jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([2.0, 0.0, 0.5]), zero, one, zero, one, zero, zero
    )
    return Spaces(Box((-1.0,) * 3, (1.0,) * 3), action, statistics=statistics)


def test_critics_take_both_kinds_of_action(key):
    x = jax.random.normal(key, (6, 3))
    continuous = Critic(_spaces(Box((-1.0,) * 2, (1.0,) * 2)), (5,), key=key)
    action = jax.random.normal(key, (6, 2))
    expected = continuous.network(jnp.concatenate([x, action], 1))[:, 0]
    np.testing.assert_array_equal(continuous(x, action), expected)
    discrete = critics(_spaces(Discrete(4)), (5,), 2, key=key)
    choice = jnp.asarray([0, 3, 1, 2, 2, 0], jnp.int32)
    every = np.asarray(discrete.each(lambda critic: critic.values(x)))
    assert every.shape == (2, 6, 4)
    np.testing.assert_allclose(discrete(x, choice), every[:, np.arange(6), choice], rtol=1e-6)


def test_the_normaliser_standardises_and_stays_finite():
    spaces = _spaces(Discrete(2))
    normaliser = Normaliser(spaces, True)
    found = normaliser(jnp.asarray([[3.0, 2.0, 3.5], [1.0, 2.5, 3.0]]))
    expected = [[2.0 / 2.001, 0.0, 0.5 / 0.501], [0.0, 0.5 / 0.001, 0.0]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    x = jnp.asarray([0.1, 0.2, 0.3])
    assert Normaliser(spaces, False)(x).tolist() == x.tolist()
    without = Spaces(spaces.observation, spaces.action)
    assert Normaliser(without, True)(x).tolist() == x.tolist()
