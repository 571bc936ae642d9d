"""Fresh experience of the current policy, used once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Transition, Transitions
from headwater.core.source import AbstractHostSource, AbstractSource, Keys
from headwater.environments.environment import (
    AbstractEnvironment,
    AbstractHostEnvironments,
    AbstractHostTask,
)
from headwater.environments.interaction import Act, Copies, begin, interact
from headwater.sources.collect import environment_seeds, policy_actor, walk_on_host


class Walking(eqx.Module):
    """Where the copies of the environment are."""

    copies: Copies
    steps: Int[Array, ""]


class Rollout(AbstractSource[Walking, Transitions]):
    """Acts for `steps` steps in every copy and returns just those, `[step, copy, …]`.

    Episodes go on across draws. Nothing is kept: this is the source of on-policy methods.

    **Arguments:** `environment`; `steps`: per copy and draw; `copies`: of the environment.
    """

    environment: AbstractEnvironment
    steps: int = eqx.field(static=True, default=128)
    copies: int = eqx.field(static=True, default=8)

    def init(self, *, key: PRNGKeyArray) -> Walking:
        return Walking(begin(self.environment, self.copies, key=key), jnp.zeros((), jnp.int32))

    def draw(self, state: Walking, agent: Agent, *, key: PRNGKeyArray):
        def act(observation, key):
            return agent.act(observation, key=key, explore=True)[0]

        at, rows = interact(self.environment, state.copies, act, steps=self.steps, key=key)
        return Walking(at, state.steps + self.steps * self.copies), rows

    def environment_steps(self, state: Walking) -> Int[Array, ""]:
        return state.steps


class HostWalking:
    """Open simulators, and what each shows. Mutable: it lives on the host."""

    def __init__(self, environments: AbstractHostEnvironments, observation: np.ndarray, steps: int):
        self.environments: AbstractHostEnvironments = environments
        self.observation: np.ndarray = observation
        self.steps: int = steps


class HostRollout(AbstractHostSource[HostWalking, Transitions]):
    """The host twin of `Rollout`, with the same arguments and semantics.

    Where a simulator reports resets as steps, it acts on until every copy has enough steps, and
    drops the copies' surplus.
    """

    task: AbstractHostTask
    steps: int = eqx.field(static=True, default=128)
    copies: int = eqx.field(static=True, default=8)

    def init(self, *, keys: Keys) -> HostWalking:
        environments = self.task.open(keys.shape[0] * self.copies)
        observation = environments.reset(environment_seeds(keys, self.copies))
        return HostWalking(environments, observation.reshape(keys.shape[0], self.copies, -1), 0)

    def draw(self, state: HostWalking, agent: Agent, *, keys: Keys):
        act, done, missing = policy_actor(agent), 0, self.steps
        pieces, marks = [], []
        while missing > 0:
            # The keys of a step depend on its number, which goes on from piece to piece.
            state.observation, rows, valid = walk_on_host(
                state.environments,
                state.observation,
                lambda observation, keys, t, done=done: act(observation, keys, done + t),
                missing,
                keys,
            )
            pieces.append(rows)
            marks.append(valid)
            done += missing
            missing = self.steps - int(np.min(np.sum(np.concatenate(marks, 1), axis=1)))
        state.steps += done * self.copies
        rows = jax.tree.map(lambda *x: np.concatenate(x, 1), *pieces)
        # The first steps of each copy, in their order: a stable sort puts resets behind them.
        first = np.argsort(~np.concatenate(marks, 1), axis=1, kind="stable")[:, : self.steps]
        return state, jax.tree.map(lambda x: _taken(x, first), rows)

    def environment_steps(self, state: HostWalking) -> int:
        return state.steps

    def save(self, state: HostWalking) -> dict[str, np.ndarray]:
        saved = {f"environment.{k}": v for k, v in state.environments.save().items()}
        return {**saved, "steps": np.asarray(state.steps)}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> HostWalking:
        state = self.init(keys=keys)
        prefix = "environment."
        inside = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        observation = state.environments.load(inside)
        state.observation = observation.reshape(state.observation.shape)
        state.steps = int(saved["steps"])
        return state

    def close(self, state: HostWalking) -> None:
        state.environments.close()


def rollout(
    task: AbstractEnvironment | AbstractHostTask, steps: int, copies: int
) -> Rollout | HostRollout:
    """The source that acts in `task` and returns just that: compiled if it is, on the host if not.

    **Arguments:** `steps`: of each of the `copies` and each draw.
    """
    if isinstance(task, AbstractEnvironment):
        return Rollout(task, steps, copies)
    return HostRollout(task, steps, copies)


def _taken(column: np.ndarray, at: np.ndarray) -> np.ndarray:
    """`column` `[seed, step, copy, …]` at the steps `at` of each seed and copy."""
    return np.take_along_axis(column, at.reshape(*at.shape, *(1,) * (column.ndim - 3)), axis=1)


class Streaming(eqx.Module):
    """Where the environment is, and how many steps it took."""

    copies: Copies
    steps: Int[Array, ""]


class Stream(AbstractSource[Streaming, Transition]):
    """Takes one step in a pure-JAX environment and returns it. Nothing is kept.

    Episodes follow each other. Under `vmap` there are as many streams as seeds.

    **Arguments:** `environment`; `act`: from an observation and a key to an action, for methods
    that predict and do not act; by default the method itself acts, exploring.
    """

    environment: AbstractEnvironment
    act: Act | None = eqx.field(static=True, default=None)

    def init(self, *, key: PRNGKeyArray) -> Streaming:
        return Streaming(begin(self.environment, 1, key=key), jnp.zeros((), jnp.int32))

    def draw(self, state: Streaming, agent: Agent, *, key: PRNGKeyArray):
        def act(observation, key):
            return agent.act(observation, key=key, explore=True)[0]

        copies, rows = interact(self.environment, state.copies, self.act or act, steps=1, key=key)
        row = jax.tree.map(lambda x: x[0, 0], rows)
        step = Transition(
            row.observation,
            row.action,
            row.reward,
            row.next_observation,
            row.terminal,
            row.truncated,
        )
        return Streaming(copies, state.steps + 1), step

    def environment_steps(self, state: Streaming) -> Int[Array, ""]:
        return state.steps
