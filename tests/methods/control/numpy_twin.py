"""Networks, Adam and batches in plain double-precision NumPy, differentiated by hand.

Shares no line with the library: parameters go in and come out as lists of arrays in the order of
the tree's leaves.
"""

import equinox as eqx
import jax
import numpy as np

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces, Statistics

OBSERVATION, ACTION, CHOICES, ROWS = 3, 2, 4, 12
MEAN, STD = np.asarray([0.5, -1.0, 0.0]), np.asarray([2.0, 0.5, 1.0])


def problem(discrete: bool) -> Spaces:
    """A small problem whose statistics are far from 0 and 1."""
    statistics = Statistics(
        observation_mean=jax.numpy.asarray(MEAN, "float32"),
        observation_std=jax.numpy.asarray(STD, "float32"),
        return_low=jax.numpy.asarray(0.0),
        return_high=jax.numpy.asarray(10.0),
        # Rewards as they are, and values from 0 on, which `parts/test_logged_values.py` is about.
        reward_mean=jax.numpy.asarray(0.0),
        reward_std=jax.numpy.asarray(1.0),
        terminal_share=jax.numpy.asarray(0.25),
        return_to_go_mean=jax.numpy.asarray(0.0),
    )
    action = Discrete(CHOICES) if discrete else Box((-1.0,) * ACTION, (1.0,) * ACTION)
    return Spaces(Box((-9.0,) * OBSERVATION, (9.0,) * OBSERVATION), action, statistics=statistics)


def batch(seed: int, discrete: bool) -> Transitions:
    """Random rows: terminal (next observation NaN), truncated, and neither."""
    random = np.random.default_rng(seed)

    def action():
        if discrete:
            return random.integers(0, CHOICES, ROWS).astype(np.int32)
        return random.uniform(-0.95, 0.95, (ROWS, ACTION)).astype(np.float32)

    terminal = np.arange(ROWS) % 4 == 0
    next_observation = random.normal(size=(ROWS, OBSERVATION)).astype(np.float32)
    next_observation[terminal] = np.nan
    columns = Transitions(
        observation=random.normal(size=(ROWS, OBSERVATION)).astype(np.float32),
        action=action(),
        reward=random.normal(size=ROWS).astype(np.float32),
        next_observation=next_observation,
        terminal=terminal,
        truncated=np.arange(ROWS) % 4 == 1,
        next_action=action(),
    )
    return jax.tree.map(jax.numpy.asarray, columns)


def begin(method, discrete: bool):
    """The state before any data."""
    return eqx.filter_jit(method.init)(problem(discrete), key=jax.random.key(1))


@eqx.filter_jit
def update(method, state, data, *, key):
    """One update, compiled."""
    return method.update(state, data, key=key)


def standardised(observation) -> np.ndarray:
    """Observations the way that TD3+BC standardises them."""
    return (np.asarray(observation, np.float64) - MEAN) / (STD + 1e-3)


def leaves(tree) -> list[np.ndarray]:
    """The arrays of a tree in double precision."""
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def member(tree, i: int) -> list[np.ndarray]:
    """The arrays of one member of an ensemble."""
    return [leaf[i] for leaf in leaves(tree)]


class Perceptron:
    """ReLU layers; with `norm`, a layer norm after each of them. `backward` follows `forward`."""

    def __init__(self, parameters: list[np.ndarray], norm: bool = False):
        self.parameters, self.norm = [p.copy() for p in parameters], norm
        # Weights and biases of n layers, then scales and offsets of the n - 1 hidden ones.
        self.layers = (len(parameters) + 2) // 4 if norm else len(parameters) // 2

    def _of(self, layer):
        n = self.layers
        return self.parameters[layer], self.parameters[n + layer]

    def _norm_of(self, layer):
        n = self.layers
        return self.parameters[2 * n + layer], self.parameters[3 * n - 1 + layer]

    def forward(self, x):
        self.tape = []
        for i in range(self.layers):
            weight, bias = self._of(i)
            before = x
            x = x @ weight + bias
            active = normal = spread = None
            if i < self.layers - 1:
                active = x > 0
                x = x * active
                if self.norm:
                    centred = x - x.mean(-1, keepdims=True)
                    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
                    normal = centred / spread
                    scale, offset = self._norm_of(i)
                    x = normal * scale + offset
            self.tape.append((before, active, normal, spread))
        return x

    def backward(self, slope):
        """Gradients of the parameters and of the input for the output's `slope`."""
        gradients = [np.zeros_like(p) for p in self.parameters]
        n = self.layers
        for i in reversed(range(n)):
            before, active, normal, spread = self.tape[i]
            if i < n - 1:
                if self.norm:
                    gradients[2 * n + i] = (slope * normal).sum(0)
                    gradients[3 * n - 1 + i] = slope.sum(0)
                    slope = slope * self._norm_of(i)[0]
                    slope = (
                        slope
                        - slope.mean(-1, keepdims=True)
                        - normal * (slope * normal).mean(-1, keepdims=True)
                    ) / spread
                slope = slope * active
            gradients[i] = before.T @ slope
            gradients[n + i] = slope.sum(0)
            slope = slope @ self._of(i)[0].T
        return gradients, slope


class Adam:
    """Adam on a list of arrays, in place."""

    def __init__(self, parameters, learning_rate):
        self.parameters, self.learning_rate, self.count = parameters, learning_rate, 0
        self.first = [np.zeros_like(p) for p in parameters]
        self.second = [np.zeros_like(p) for p in parameters]

    def step(self, gradients):
        self.count += 1
        for parameter, m, v, g in zip(self.parameters, self.first, self.second, gradients):
            m += 0.1 * (g - m)
            v += 0.001 * (g**2 - v)
            corrected = v / (1 - 0.999**self.count)
            parameter -= (
                self.learning_rate * (m / (1 - 0.9**self.count)) / (np.sqrt(corrected) + 1e-8)
            )


def move(target: Perceptron, online: list[np.ndarray], rate: float) -> None:
    """Polyak averaging, in place."""
    for t, o in zip(target.parameters, online):
        t += rate * (o - t)


def expect_same(tree, arrays: list[np.ndarray], tolerance: float = 2e-5) -> None:
    """Fails unless the leaves of `tree` are `arrays`."""
    ours = leaves(tree)
    assert len(ours) == len(arrays)
    for a, b in zip(ours, arrays):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def expect_twins(ensemble, networks: list[Perceptron], tolerance: float = 2e-5) -> None:
    """Fails unless the members of `ensemble` are `networks`."""
    for i, network in enumerate(networks):
        for a, b in zip(member(ensemble, i), network.parameters):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def expect_gradient(optimiser_state, adam: Adam) -> None:
    """Fails unless both optimisers have seen the same gradients, scale included."""
    expect_same(optimiser_state[0].mu, adam.first, 1e-5)
    expect_same(optimiser_state[0].nu, adam.second, 1e-5)
