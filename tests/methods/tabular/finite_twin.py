"""Logged episodes of a finite process, and counting and learning from them in plain NumPy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes

HORIZON, STATES, ACTIONS = 3, 3, 2
SIZES = (HORIZON, STATES, ACTIONS)


def problem(known_reward=False) -> FiniteProblem:
    """Sizes, and rewards if they are to be known."""
    reward = jnp.asarray(np.random.default_rng(9).random(SIZES), jnp.float32)
    initial = jnp.asarray([0.5, 0.3, 0.2])
    return FiniteProblem(STATES, ACTIONS, HORIZON, initial, reward if known_reward else None)


def episodes(number: int, seed: int = 0) -> Episodes:
    """Episodes with uneven visits, so that counts differ and some steps are never seen."""
    random = np.random.default_rng(seed)
    state = random.choice(STATES, (number, HORIZON + 1), p=(0.6, 0.3, 0.1))
    state[:, 1] = np.where(state[:, 1] == 2, 0, state[:, 1])
    action = random.choice(ACTIONS, (number, HORIZON), p=(0.7, 0.3))
    reward = random.random((number, HORIZON)).astype(np.float32)
    return Episodes(state.astype(np.int32), action.astype(np.int32), reward)


@dataclasses.dataclass
class Tally:
    """Counts of steps, states, actions and next states, with sums of rewards, in float64."""

    following: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((*SIZES, STATES)))
    reward: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(SIZES))
    squared: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(SIZES))

    def add(self, h, s, a, r, t):
        self.following[h, s, a, t] += 1.0
        self.reward[h, s, a] += r
        self.squared[h, s, a] += r**2

    def clear(self, h, s, a):
        self.following[h, s, a] = self.reward[h, s, a] = self.squared[h, s, a] = 0.0

    def model(self, h, s, a):
        """Visits, frequencies of next states, mean and variance of rewards."""
        visits = self.following[h, s, a].sum()
        mean = self.reward[h, s, a] / visits
        variance = self.squared[h, s, a] / visits - mean**2
        return visits, self.following[h, s, a] / visits, mean, variance


def tally(data: Episodes) -> Tally:
    """The counts of all of them."""
    counts = Tally()
    for _, step in walk(data):
        counts.add(*step)
    return counts


def walk(data: Episodes):
    """Episode and (step, state, action, reward, next state), one after the other."""
    state, action, reward = (np.asarray(x) for x in (data.state, data.action, data.reward))
    for k in range(len(action)):
        for h in range(HORIZON):
            yield k, (h, state[k, h], action[k, h], float(reward[k, h]), state[k, h + 1])


def moments(row, value):
    """Mean and variance of `value` under the probabilities `row`."""
    mean = row @ value
    return mean, row @ (value - mean) ** 2


@eqx.filter_jit
def learn_each(method, state, data: Episodes):
    """One update for each episode; the states and metrics after each."""

    def one(state, episode):
        state, metrics = method.update(state, episode, key=jax.random.key(0))
        return state, (state, metrics)

    return jax.lax.scan(one, state, jax.tree.map(jnp.asarray, data))[1]


def begin(method, known_reward=False):
    """The state before learning."""
    return method.init(problem(known_reward), key=jax.random.key(0))
