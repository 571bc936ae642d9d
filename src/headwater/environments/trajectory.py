"""Tasks whose observations hold the last steps of the trajectory and what it has brought."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from headwater.core.method import UnbatchedAction
from headwater.core.problems.trajectory import as_trajectory, return_spaces, trajectory_spaces
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.history import WithHistory


class ReturnState(eqx.Module):
    """Where the task is, and the sum of the rewards so far."""

    inner: PyTree
    total: Float[Array, ""]


class WithReturn(AbstractEnvironment):
    """A task whose observations end with the return of the episode so far.

    **Arguments:** `task`: in pure JAX.
    """

    task: AbstractEnvironment

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, task: AbstractEnvironment):
        self.task = task

    @property
    def name(self) -> str:
        return f"{self.task.name} (with its return)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return self.task.reference_returns

    @property
    def spaces(self) -> Spaces:
        return return_spaces(self.task.spaces)

    def reset(self, *, key: PRNGKeyArray):
        inner, observation = self.task.reset(key=key)
        return ReturnState(inner, jnp.zeros(())), jnp.append(observation, 0.0)

    def step(self, state: ReturnState, action: UnbatchedAction, *, key: PRNGKeyArray):
        inner, seen = self.task.step(state.inner, action, key=key)
        total = state.total + seen.reward
        shown = jnp.append(seen.observation, total)
        return ReturnState(inner, total), dataclasses.replace(seen, observation=shown)


class WithTrajectory(AbstractEnvironment):
    """A task whose observations are the last `length` steps of the trajectory, laid end to end.

    As `WithHistory`, with the return so far in each frame: what a policy of returns, such as
    `NetLLM`, acts on (`core/problems/trajectory.py`). Logs of the task get the same form from
    `datasets.transform.with_trajectory`.

    **Arguments:** `task`: in pure JAX; `length`: steps, the present one included.

    Raises `SpecificationError` unless `length` is at least 1, or if there is a history already.
    """

    task: AbstractEnvironment
    length: int = eqx.field(static=True)

    def __init__(self, task: AbstractEnvironment, length: int):
        self.task = task
        self.length = length
        trajectory_spaces(task.spaces, length)

    @property
    def name(self) -> str:
        return f"{self.task.name} ({self.length} steps with returns)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return self.task.reference_returns

    @property
    def spaces(self) -> Spaces:
        spaces = self._shown.spaces
        return dataclasses.replace(spaces, observation=as_trajectory(spaces.observation))

    def reset(self, *, key: PRNGKeyArray):
        return self._shown.reset(key=key)

    def step(
        self, state: PyTree, action: UnbatchedAction, *, key: PRNGKeyArray
    ) -> tuple[PyTree, Step]:
        return self._shown.step(state, action, key=key)

    @property
    def _shown(self) -> WithHistory:
        return WithHistory(WithReturn(self.task), self.length)
