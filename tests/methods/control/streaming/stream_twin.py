"""Learning from single steps in NumPy, in float64, with everything that was seen kept in lists.

Gradients are finite differences and moments are taken over all that was seen, so nothing of the
library's way to compute them is repeated here.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Transition
from headwater.core.spaces import Box, Discrete, Spaces

OBSERVATION, CHOICES, STEPS = 3, 4, 12
FIELDS = {"discount": 0.9, "trace_decay": 0.7, "hidden_sizes": (5, 4), "sparsity": 0.5}
"""Settings of the comparisons."""
STEP_SIZES = ((1.0, True), (1e-3, True), (0.01, False))
"""Learning rates, and whether they are bounded: far above the bound, below it, and without it."""
_TERMINAL, _TRUNCATED = (3, 9), (6,)


def problem(discrete: bool = True) -> Spaces:
    """Three observations; four choices, or two numbers to choose."""
    action = Discrete(CHOICES) if discrete else Box((-1.0, -1.0), (1.0, 1.0))
    return Spaces(Box((-10.0,) * OBSERVATION, (10.0,) * OBSERVATION), action)


def steps(discrete: bool = True) -> list[Transition]:
    """A stream of four episodes; what stands behind its terminal steps is not a number."""
    random = np.random.default_rng(3)
    found, observation = [], random.normal(size=OBSERVATION)
    for t in range(STEPS):
        following = 0.5 * observation + random.normal(size=OBSERVATION)
        action = random.integers(CHOICES) if discrete else random.uniform(-0.9, 0.9, 2)
        found.append(
            Transition(
                jnp.asarray(observation, jnp.float32),
                jnp.asarray(action, jnp.int32 if discrete else jnp.float32),
                jnp.asarray(3.0 * random.normal(), jnp.float32),
                jnp.asarray(following, jnp.float32),
                jnp.asarray(t in _TERMINAL),
                jnp.asarray(t in _TRUNCATED),
            )
        )
        over = t in (*_TERMINAL, *_TRUNCATED)
        observation = random.normal(size=OBSERVATION) if over else following
        if t in _TERMINAL:
            found[-1] = replace(found[-1], next_observation=jnp.full(OBSERVATION, jnp.nan))
    return found


def begun(method, problem: Spaces, *networks: str):
    """A first state whose `networks` have random weights.

    The first observation is zero when it is standardised, where with biases of zero every unit
    stands on the kink of its activation, and finite differences are no gradients.
    """
    state = method.init(problem, key=jax.random.key(2))
    random = np.random.default_rng(4)

    def shaken(x):
        return x + jnp.asarray(0.3 * random.normal(size=x.shape), jnp.float32)

    changed = {name: jax.tree.map(shaken, getattr(state, name)) for name in networks}
    return replace(state, **changed)


def updated(method, state, data):
    """The state after all steps of `data`, one by one."""
    update = jax.jit(lambda state, step: method.update(state, step, key=jax.random.key(0))[0])
    for step in data:
        state = update(state, step)
    return state


def flat(tree) -> np.ndarray:
    """All numbers of a tree in a row."""
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


class TwinNetwork:
    """A network whose weights are one row of numbers, with its trace."""

    def __init__(self, network):
        self.shapes = [np.shape(x) for x in jax.tree.leaves(network)]
        self.weights = flat(network)
        self.trace = np.zeros_like(self.weights)

    def __call__(self, x, weights=None):
        weights = self.weights if weights is None else weights
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        parts = [p.reshape(s) for p, s in zip(np.split(weights, ends[:-1]), self.shapes)]
        layers = len(parts) // 2
        for i, (matrix, bias) in enumerate(zip(parts[:layers], parts[layers:])):
            x = x @ matrix + bias
            if i < layers - 1:
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                x = np.where(x > 0, x, 0.01 * x)
        return x

    def learn(self, function, error, over, *, method, kappa):
        """One step up `error` times the trace of `function(weights)`; then clears it if `over`."""
        gradient = np.empty_like(self.weights)
        for i in range(len(gradient)):
            shift = np.zeros_like(self.weights)
            shift[i] = 1e-6
            gradient[i] = (function(self.weights + shift) - function(self.weights - shift)) / 2e-6
        self.trace = method.discount * method.trace_decay * self.trace + gradient
        size = method.learning_rate
        if method.bounded:
            bound = size * kappa * max(abs(error), 1.0) * np.abs(self.trace).sum()
            size = min(size, size / bound)
        self.weights = self.weights + size * error * self.trace
        if over:
            self.trace = np.zeros_like(self.trace)


class TwinScales:
    """All observations and discounted sums of rewards, and moments of them when asked for."""

    def __init__(self):
        self.observations, self.sums, self.fresh = [], [], True

    def scaled(self, method, data: Transition):
        """Observation, reward and next observation in scale; the last is None behind the end."""
        observation = np.asarray(data.observation, np.float64)
        if self.fresh:
            self.observations.append(observation)
        observation = self._standardised(observation)
        following = None
        if not data.terminal:
            self.observations.append(np.asarray(data.next_observation, np.float64))
            following = self._standardised(self.observations[-1])
        self.fresh = bool(data.terminal | data.truncated)
        last = self.sums[-1] if self.sums and not self.fresh else 0.0
        self.sums.append(method.discount * last + float(data.reward))
        reward = float(data.reward) / _deviation(self.sums)
        return observation, reward, following

    def _standardised(self, x):
        return (x - np.mean(self.observations, 0)) / _deviation(self.observations)


def _deviation(seen):
    return np.sqrt((np.var(seen, 0, ddof=1) if len(seen) > 1 else 1.0) + 1e-8)
