"""The actor-critic with tables: one step in NumPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProcess
from headwater.parts.meta.agents import play
from headwater.parts.meta.antagonist import Antagonist, advance, learn_by_advantages

SETTINGS = SimpleNamespace(
    episodes_per_update=5,
    gae_lambda=0.7,
    entropy_weight=0.3,
    antagonist_learning_rate=2.0,
    value_learning_rate=3.0,
    max_gradient_norm=0.2,
)
HORIZON, STATES, ACTIONS = 2, 3, 2


def process():
    keys = jax.random.split(jax.random.key(0), 2)
    shape = (HORIZON, STATES, ACTIONS)
    return FiniteProcess(
        jax.random.dirichlet(keys[0], jnp.ones(STATES), shape),
        jax.random.normal(keys[1], shape),
        jnp.full(STATES, 1.0 / STATES),
    )


def shortened(gradient):
    return gradient * min(1.0, 0.2 / np.sqrt((gradient**2).sum()))


def test_one_step():
    keys = jax.random.split(jax.random.key(1), 3)
    begun = Antagonist(
        jax.random.normal(keys[0], (HORIZON, STATES, ACTIONS)),
        jax.random.normal(keys[1], (HORIZON, STATES)),
    )
    moved = jax.jit(lambda one: learn_by_advantages(SETTINGS, one, process(), key=keys[2]))(begun)
    logits, value = np.asarray(begun.policy, np.float64), np.asarray(begun.value, np.float64)
    policy = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    episodes = play(process(), jnp.asarray(policy, jnp.float32), 5, key=keys[2])
    state, action, reward = (
        np.asarray(x) for x in (episodes.state, episodes.action, episodes.reward)
    )
    advantage = np.zeros((5, 2))
    for i in range(5):
        last = reward[i, 1] - value[1, state[i, 1]]
        first = reward[i, 0] + value[1, state[i, 1]] - value[0, state[i, 0]]
        advantage[i] = first + 0.7 * last, last
    scaled = (advantage - advantage.mean()) / advantage.std()
    up, down = np.zeros_like(logits), np.zeros_like(value)
    for i in range(5):
        for t in range(2):
            s = state[i, t]
            row = policy[t, s]
            entropy = -(row * np.log(row)).sum()
            up[t, s] += scaled[i, t] * (np.eye(ACTIONS)[action[i, t]] - row) / 10
            up[t, s] += 0.3 * -row * (np.log(row) + entropy) / 10
            down[t, s] -= 2.0 * advantage[i, t] / 10
    assert np.sqrt((up**2).sum()) > 0.2
    np.testing.assert_allclose(moved.policy, logits + 2.0 * shortened(up), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved.value, value - 3.0 * shortened(down), rtol=1e-4, atol=1e-5)


def test_it_learns_which_action_is_best():
    best = jnp.broadcast_to(jnp.asarray([0.0, 1.0]), (HORIZON, STATES, ACTIONS))
    task = FiniteProcess(process().transition, best, process().initial)
    begun = Antagonist(jnp.zeros((HORIZON, STATES, ACTIONS)), jnp.zeros((HORIZON, STATES)))
    learned = jax.jit(lambda one, key: advance(SETTINGS, one, task, 300, key=key))
    policy = jax.nn.softmax(learned(begun, jax.random.key(2)).policy)
    assert float(policy[..., 1].min()) > 0.8
