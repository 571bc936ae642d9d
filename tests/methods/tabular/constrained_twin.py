"""Counting, planning and summing of a constrained process in NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes

H, S, A, D = 3, 4, 2, 1


PROBLEM = FiniteProblem(
    S, A, H, initial=jnp.asarray([0.5, 0.5, 0.0, 0.0]), budgets=jnp.asarray([0.4])
)


KEY = jax.random.key(0)


def data_of(count, seed=0):
    random = np.random.default_rng(seed)
    return Episodes(
        jnp.asarray(random.integers(0, S, (count, H + 1)), jnp.int32),
        jnp.asarray(random.integers(0, A, (count, H)), jnp.int32),
        jnp.asarray(random.random((count, H)), jnp.float32),
        jnp.asarray(random.random((count, H, D)), jnp.float32),
    )


def tables(data, stationary):
    """Visits, next states, sums of rewards and of costs, for every step."""
    visits, following = np.zeros((H, S, A)), np.zeros((H, S, A, S))
    reward, cost = np.zeros((H, S, A)), np.zeros((H, S, A))
    for states, actions, rewards, costs in zip(data.state, data.action, data.reward, data.cost):
        for h in range(H):
            for at in range(H) if stationary else [h]:
                where = at, int(states[h]), int(actions[h])
                visits[where] += 1
                following[(*where, int(states[h + 1]))] += 1
                reward[where] += float(rewards[h])
                cost[where] += float(costs[h, 0])
    return visits, following, reward, cost


def updated(method, *batches):
    state = method.init(PROBLEM, key=KEY)
    update = jax.jit(lambda state, data: method.update(state, data, key=KEY))
    for data in batches:
        state, metrics = update(state, data)
    return state, metrics


def plan_of(transition, reward):
    """The first of the best policies, by backward induction in double precision."""
    value, policy = np.zeros(S), np.zeros((H, S, A))
    for h in reversed(range(H)):
        q = reward[h] + transition[h] @ value
        best = np.argmax(q, axis=1)
        policy[h, np.arange(S), best] = 1.0
        value = q.max(axis=1)
    return policy


def sum_of(transition, policy, table):
    here, total = np.asarray([0.5, 0.5, 0.0, 0.0]), 0.0
    for h in range(H):
        visited = here[:, None] * policy[h]
        total += (visited * table[h]).sum()
        here = np.einsum("sa,sat->t", visited, transition[h])
    return total
