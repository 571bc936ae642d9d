"""Tasks that come with an expert, who acts or says what would have been right."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.method import UnbatchedAction
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, AbstractExpert, Step
from headwater.environments.history import WithHistory
from headwater.environments.interaction import Act, Copies, interact

Expert = Callable[[PyTree, PRNGKeyArray], UnbatchedAction]
"""From a state and a key to an action."""


def expert_of(task: AbstractEnvironment) -> Expert:
    """What an expert does in `task`. Raises `SpecificationError` if the task does not know it."""
    if isinstance(task, WithHistory):
        inner = expert_of(task.task)
        return lambda state, key: inner(state.inner, key)
    if isinstance(task, AbstractExpert):
        return lambda state, key: task.expert_action(state, key=key)
    raise SpecificationError(
        f"{task.name} does not say what an expert would do: derive its class from AbstractExpert "
        "(cable-routing is one that does)"
    )


class Advised(AbstractEnvironment):
    """A task whose observations end with what an expert would do next.

    Raises `SpecificationError` if the task knows no expert.
    """

    task: AbstractEnvironment

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, task: AbstractEnvironment):
        expert_of(task)
        self.task = task

    @property
    def name(self) -> str:
        return f"{self.task.name} (advised)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return self.task.reference_returns

    @property
    def spaces(self) -> Spaces:
        spaces = self.task.spaces
        discrete = spaces.discrete
        low = (0.0,) if discrete else (-1.0,) * spaces.action_size
        high = (spaces.action_size - 1.0,) if discrete else (1.0,) * spaces.action_size
        box = Box((*spaces.observation.low, *low), (*spaces.observation.high, *high))
        return dataclasses.replace(spaces, observation=box, statistics=None)

    def reset(self, *, key: PRNGKeyArray):
        reset_key, expert_key = jax.random.split(key)
        state, observation = self.task.reset(key=reset_key)
        return state, self._advised(state, observation, expert_key)

    def step(self, state: PyTree, action: UnbatchedAction, *, key: PRNGKeyArray):
        step_key, expert_key = jax.random.split(key)
        reached, seen = self.task.step(state, action, key=step_key)
        shown = self._advised(reached, seen.observation, expert_key)
        return reached, Step(shown, seen.reward, seen.terminal, seen.truncated)

    def parted(self, shown: Array) -> tuple[Array, Array]:
        """The observations of the task, and the expert's actions."""
        observation, advice = jnp.split(shown, [self.task.spaces.observation_size], axis=-1)
        if self.task.spaces.discrete:
            return observation, advice[..., 0].astype(jnp.int32)
        return observation, advice

    def _advised(self, state: PyTree, observation: Array, key: PRNGKeyArray) -> Array:
        advice = jnp.atleast_1d(expert_of(self.task)(state, key))
        return jnp.concatenate([observation, advice.astype(jnp.float32)])


def corrected(
    task: Advised,
    at: Copies,
    act: Act,
    *,
    expert_share: float | Array = 0.0,
    steps: int,
    key: PRNGKeyArray,
) -> tuple[Copies, Transitions]:
    """Acts for `steps` steps in every copy, and notes what the expert would have done.

    **Arguments:** `act`: from an observation of the task itself; `expert_share`: of the steps in
    which the expert acts instead: with 1, these are demonstrations.

    **Returns:** where the copies are now, and transitions `[steps, copy]` of the task whose action
    is the expert's; rewards and next observations are those of what was done.
    """

    def follow(shown, key):
        coin_key, act_key = jax.random.split(key)
        observation, advice = task.parted(shown)
        leads = jax.random.uniform(coin_key) < expert_share
        return jnp.where(leads, advice, act(observation, act_key))

    at, rows = interact(task, at, follow, steps=steps, key=key)
    observation, advice = task.parted(rows.observation)
    following = task.parted(rows.next_observation)[0]
    return at, dataclasses.replace(
        rows, observation=observation, action=advice, next_observation=following
    )
