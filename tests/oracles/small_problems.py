"""Problems small enough for an exact answer, and training on every row of them at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces

DISCOUNT = 0.8

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
