"""Problems small enough for an exact answer, and training on every row of them at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces

DISCOUNT = 0.8

BANDIT_SETTINGS = {"learning_rate": 3e-3, "hidden_sizes": (32, 32)}
"""Settings that suit the one-step problem of `bandit`."""
CHAIN_SETTINGS = {"discount": DISCOUNT, "learning_rate": 3e-3, "hidden_sizes": (32,)}
"""Settings that suit `chain`."""
PROBE = jnp.linspace(-0.9, 0.9, 13)[:, None]
"""Observations at which policies of the one-step problem are looked at."""

CHAIN_STATES = 4
CHAIN_NEXT = np.asarray([[0, 1], [0, 2], [1, 3], [2, 0]])
"""Next state by state and action; action 1 in the last state ends the process."""
CHAIN_REWARD = np.asarray([[0.3, 0.0], [0.0, 0.1], [0.0, -0.2], [0.0, 1.0]])


def chain() -> tuple[Spaces, Transitions]:
    """A chain with one-hot observations and every state-action pair once.

    The one terminal row has a next observation that is not a number. Half of the rows are marked
    as truncated, which must change nothing.
    """
    state, action = (x.reshape(-1) for x in np.indices((CHAIN_STATES, 2)))
    one_hot = np.eye(CHAIN_STATES, dtype=np.float32)
    terminal = (state == CHAIN_STATES - 1) & (action == 1)
    next_observation = one_hot[CHAIN_NEXT[state, action]]
    next_observation[terminal] = np.nan
    data = Transitions(
        observation=one_hot[state],
        action=action.astype(np.int32),
        reward=CHAIN_REWARD[state, action].astype(np.float32),
        next_observation=next_observation,
        terminal=terminal,
        truncated=(action == 0) & ~terminal,
    )
    box = Box((0.0,) * CHAIN_STATES, (1.0,) * CHAIN_STATES)
    return Spaces(box, Discrete(2)), jax.tree.map(jnp.asarray, data)


def chain_values(policy: np.ndarray) -> np.ndarray:
    """Q of a policy `[state, action]` on the chain, by solving the linear system."""
    size = 2 * CHAIN_STATES
    transition = np.zeros((size, size))
    for state, action in np.ndindex(CHAIN_STATES, 2):
        if (state, action) != (CHAIN_STATES - 1, 1):
            following = CHAIN_NEXT[state, action]
            transition[2 * state + action, 2 * following : 2 * following + 2] = policy[following]
    q = np.linalg.solve(np.eye(size) - DISCOUNT * transition, CHAIN_REWARD.reshape(-1))
    return q.reshape(CHAIN_STATES, 2)


def chain_optimum() -> np.ndarray:
    """Q of the best policy on the chain: greedy improvement until nothing changes."""
    policy = np.full((CHAIN_STATES, 2), 0.5)
    while True:
        q = chain_values(policy)
        better = np.eye(2)[q.argmax(-1)]
        if np.array_equal(better, policy):
            return q
        policy = better


def best_action(observation):
    """The best action of the one-step problem of `bandit`."""
    return 0.6 * jnp.tanh(observation)


@eqx.filter_jit
def bandit(key, rows: int = 512) -> tuple[Spaces, Transitions]:
    """One-step episodes: the reward is minus four times the squared distance to `best_action`.

    Logged actions are uniform; next observations are not numbers.
    """
    observation_key, action_key = jax.random.split(key)
    observation = jax.random.uniform(observation_key, (rows, 1), minval=-1.0, maxval=1.0)
    action = jax.random.uniform(action_key, (rows, 1), minval=-1.0, maxval=1.0)
    over = jnp.ones(rows, bool)
    data = Transitions(
        observation=observation,
        action=action,
        reward=-4.0 * jnp.sum((action - best_action(observation)) ** 2, axis=-1),
        next_observation=jnp.full_like(observation, jnp.nan),
        terminal=over,
        truncated=~over,
        next_action=action,
    )
    return Spaces(Box((-1.0,), (1.0,)), Box((-1.0,), (1.0,))), data


def arms(counts, rewards) -> tuple[Spaces, Transitions]:
    """One-step episodes in one state: arm `i` was pulled `counts[i]` times for `rewards[i]`."""
    action = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    observation = np.ones((len(action), 1), np.float32)
    data = Transitions(
        observation=observation,
        action=action,
        reward=np.asarray(rewards, np.float32)[action],
        next_observation=np.full_like(observation, np.nan),
        terminal=np.ones(len(action), bool),
        truncated=np.zeros(len(action), bool),
    )
    return Spaces(Box((0.0,), (1.0,)), Discrete(len(counts))), jax.tree.map(jnp.asarray, data)


COUNTS, REWARDS = np.asarray([8, 4, 3, 1]), np.asarray([0.2, 0.5, -0.4, 0.3])
"""How often each arm of the examples was pulled, and what it paid."""


def expect_best_action(method, key):
    """Fails unless `method` finds the best action of the one-step problem and its values."""
    problem, data = bandit(key)
    state = trained(method, problem, data, 1500)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.1)
    error = values(method, state, data) - data.reward
    assert np.sqrt(np.mean(error**2)) < 0.15


def expect_mean_logged_action(method, key):
    """Fails unless `method` clones: logged actions are uniform, so that their mean is 0."""
    problem, data = bandit(key)
    state = trained(method, problem, data, 300)
    np.testing.assert_allclose(greedy(method, state, PROBE), np.zeros((13, 1)), atol=0.2)


def expect_bootstrapping(method, key):
    """One state that follows itself for a reward of 1: worth 1 / (1 - 0.8) if it goes on."""
    problem, data = bandit(key)
    still = jnp.ones_like(data.observation)
    data = eqx.tree_at(
        lambda d: (d.observation, d.next_observation, d.reward),
        data,
        (still, still, jnp.ones_like(data.reward)),
    )
    on = eqx.tree_at(lambda d: (d.terminal, d.truncated), data, (data.truncated, data.terminal))
    for rows, worth in ((data, 1.0), (on, 5.0)):
        state = trained(method, problem, rows, 1500)
        np.testing.assert_allclose(np.mean(values(method, state, rows)), worth, rtol=0.03)


def expect_optimal_chain_values(method):
    """Fails unless `method` learns the values of the best policy on the chain."""
    problem, data = chain()
    state = trained(method, problem, data, 2000)
    learned = np.asarray(values(method, state, data)).reshape(CHAIN_STATES, 2)
    np.testing.assert_allclose(learned, chain_optimum(), atol=0.02)
    best = greedy(method, state, jnp.eye(CHAIN_STATES))
    np.testing.assert_array_equal(best, chain_optimum().argmax(-1))


def trained(method, problem: Spaces, data: Transitions, updates: int):
    """The state after `updates` updates on all rows of `data`."""
    # Numbers become arguments of the compiled program, so that it serves all their values.
    return _trained(jax.tree.map(jnp.asarray, method), problem, data, jnp.asarray(updates))


@eqx.filter_jit
def _trained(method, problem: Spaces, data: Transitions, updates):
    def one(i, state):
        return method.update(state, data, key=jax.random.key(i))[0]

    return jax.lax.fori_loop(0, updates, one, method.init(problem, key=jax.random.key(7)))


@eqx.filter_jit
def greedy(method, state, observations):
    """The greedy action in each of `observations`."""
    key = jax.random.key(0)
    return jax.vmap(lambda o: method.act(state, o, key=key, explore=False)[0])(observations)


@eqx.filter_jit
def values(method, state, data: Transitions):
    """The value of each row's action."""
    return jax.vmap(lambda o, a: method.value(state, o, a))(data.observation, data.action)
