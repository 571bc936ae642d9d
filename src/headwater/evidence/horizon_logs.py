"""Logs of a small process, cut to any horizon and with rewards in any units, and their truth."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod, AbstractPolicy
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.datasets.dataset import Dataset
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

STATES, ACTIONS = 6, 4
"""Of the process."""
NOISE = 0.2
"""Standard deviation of what is added to each reward, where rewards lie in [0, 1]."""

_LOOKED_AT = 100
"""Shares of an episode at which a policy is asked for its actions."""


class Cell(NamedTuple):
    """One log: episodes of `horizon` steps, rewards `scale · (r + offset)`."""

    horizon: int
    offset: float
    scale: float


class HorizonLog(NamedTuple):
    """A log and what is known of it.

    **Arguments:** `data`; `transition`: `[state, action, next state]`; `reward`: `[state, action]`,
    without offset and scale, `horizon`: steps of an episode.
    """

    data: Dataset
    transition: np.ndarray
    reward: np.ndarray
    horizon: int

    def share(self, choices: np.ndarray) -> float:
        """The share of the gap between the behaviour and the optimum that a policy closes.

        Exact, of undiscounted rewards; both may depend on the step.

        **Arguments:** `choices`: the action in each step and state, `[horizon, state]`.
        """
        behaviour = np.full((self.horizon, STATES, ACTIONS), 1.0 / ACTIONS)
        low, own = self._return(behaviour), self._return(np.eye(ACTIONS)[choices])
        return (own - low) / (self._return(None) - low)

    def _return(self, policy: np.ndarray | None) -> float:
        value = np.zeros(STATES)
        for i in reversed(range(self.horizon)):
            q = self.reward + self.transition @ value
            value = q.max(1) if policy is None else (policy[i] * q).sum(1)
        return float(value.mean())


def horizon_log(
    cell: Cell,
    *,
    instance: int,
    rows: int = 2000,
    step_seen: bool = False,
    time_limit: bool = False,
) -> HorizonLog:
    """A log of uniformly random actions in a random process.

    The state is observed as a one-hot vector. The same `instance` gives the same process and, up to
    where episodes begin anew, the same experience in every cell.

    **Arguments:** `cell`; `instance`: number of the process; `rows`: a multiple of the horizon;
    `step_seen`: the share of the episode that is over is a last component, else 0. Where it is not
    seen, no function of what is observed foretells the end; `time_limit`: whether episodes are
    truncated there, else their end is terminal.
    """
    random = np.random.default_rng(instance)
    transition = random.dirichlet(np.full(STATES, 0.3), (STATES, ACTIONS))
    reward = random.uniform(size=(STATES, ACTIONS))
    action = random.integers(0, ACTIONS, rows)
    begun = random.integers(0, STATES, rows)
    draws, noise = random.uniform(size=rows), NOISE * random.normal(size=rows)
    cumulative = transition.cumsum(-1)
    state, following = np.zeros(rows, int), np.zeros(rows, int)
    for i in range(rows):
        state[i] = begun[i] if i % cell.horizon == 0 else following[i - 1]
        after = np.searchsorted(cumulative[state[i], action[i]], draws[i])
        following[i] = min(after, STATES - 1)
    ends = np.arange(rows) % cell.horizon == cell.horizon - 1
    over = np.arange(rows) % cell.horizon / cell.horizon
    seen = lambda state, over: np.c_[np.eye(STATES)[state], step_seen * over].astype(np.float32)
    data = Dataset.from_arrays(
        seen(state, over),
        action,
        cell.scale * (reward[state, action] + noise + cell.offset),
        ends & (not time_limit),
        ends,
        next_observations=seen(following, over + 1 / cell.horizon),
        discrete=True,
        action_count=ACTIONS,
    )
    return HorizonLog(data, transition, reward, cell.horizon)


def shares_closed(
    method: AbstractMethod,
    logs: list[HorizonLog],
    *,
    updates: int,
    batch_size: int,
    seed: int,
    step_seen: bool = False,
) -> np.ndarray:
    """What the greedy policy that `method` learns from each log closes of its gap, `[log]`.

    All logs are learned from in one compiled program, and with the same random numbers, so that
    only the logs differ; they must have equally many rows.
    """
    stack = lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves])
    data = jax.tree.map(stack, *(log.data.transitions() for log in logs))
    statistics = jax.tree.map(stack, *(log.data.spaces.statistics for log in logs))
    spaces = logs[0].data.spaces
    key = jax.random.key(seed)
    choices = np.asarray(
        _learned(method, spaces, statistics, data, updates, batch_size, step_seen, key)
    )
    at = lambda horizon: np.arange(horizon) * _LOOKED_AT // horizon
    return np.asarray([log.share(own[at(log.horizon)]) for log, own in zip(logs, choices)])


@eqx.filter_jit
def _learned(method, spaces, statistics, data, updates, batch_size, step_seen, key):
    over = jnp.repeat(jnp.arange(_LOOKED_AT) / _LOOKED_AT, STATES)[:, None]
    states = jnp.tile(jnp.eye(STATES), (_LOOKED_AT, 1))
    observations = jnp.concatenate([states, step_seen * over], 1)

    def one(statistics, data: Transitions):
        problem = Spaces(spaces.observation, spaces.action, spaces.horizon, statistics)
        state = learn(method, problem, Replay(data, batch_size), updates, key=key).state
        assert isinstance(method, AbstractPolicy)
        act = lambda o: method.act(state, o, key=key, explore=False)[0]
        return jax.vmap(act)(observations).reshape(_LOOKED_AT, STATES)

    return jax.vmap(one)(statistics, data)
