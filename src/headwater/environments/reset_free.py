"""Tasks that are done and undone in turn, so that nobody has to reset them."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.method import Observation, UnbatchedAction
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, Step


class AbstractReversible(eqx.Module):
    """A capability of environments: it is known when the task is done, and when it is undone."""

    @abc.abstractmethod
    def done(self, state: PyTree) -> Bool[Array, ""]:
        """Whether the task is done in this state."""

    @abc.abstractmethod
    def undone(self, state: PyTree) -> Bool[Array, ""]:
        """Whether an episode could begin in this state."""


class DoneAndUndoneState(eqx.Module):
    """Where the task is, which of the two is under way (0: doing, 1: undoing), and steps taken."""

    inner: PyTree
    phase: Float[Array, ""]
    time: Int[Array, ""]


class DoneAndUndone(AbstractEnvironment):
    """A task that is done for some steps and then undone for as many, without a reset between.

    What is seen ends with a component that says which of the two is asked for: 0 to do the task, 1
    to bring it back to where an episode could begin. Reward: one for every step at whose end what
    is asked for holds. After `rounds` of both somebody resets it, as after a terminal step.

    **Arguments:** `task`: in pure JAX, of which it is known when it is done and undone; `steps`: of
    each of the two (default: the task's horizon); `rounds`: until it is reset.

    Raises `SpecificationError` if the task is none of these, or for fewer than one step or round.
    """

    task: AbstractEnvironment
    steps: int = eqx.field(static=True)
    rounds: int = eqx.field(static=True)

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, task: AbstractEnvironment, *, steps: int | None = None, rounds: int = 1):
        if not isinstance(task, AbstractReversible):
            raise SpecificationError(
                f"{task.name} does not say when it is done and undone: derive its class from "
                "AbstractReversible (peg-insertion is one that does)"
            )
        steps = task.spaces.horizon if steps is None else steps
        if steps is None or steps < 1 or rounds < 1:
            raise SpecificationError(
                f"steps = {steps} and rounds = {rounds} must both be at least 1, and {task.name} "
                f"has a horizon of {task.spaces.horizon}"
            )
        self.task, self.steps, self.rounds = task, steps, rounds

    @property
    def name(self) -> str:
        return f"{self.task.name} (done and undone)"

    @property
    def reference_returns(self) -> None:
        return None

    @property
    def spaces(self) -> Spaces:
        spaces = self.task.spaces
        box = Box((*spaces.observation.low, 0.0), (*spaces.observation.high, 1.0))
        return Spaces(box, spaces.action, horizon=2 * self.steps * self.rounds)

    def reset(self, *, key: PRNGKeyArray):
        inner, observation = self.task.reset(key=key)
        state = DoneAndUndoneState(inner, jnp.zeros(()), jnp.zeros((), jnp.int32))
        return state, _shown(observation, state.phase)

    def step(self, state: DoneAndUndoneState, action: UnbatchedAction, *, key: PRNGKeyArray):
        task = self.task
        assert isinstance(task, AbstractReversible)
        inner, seen = task.step(state.inner, action, key=key)
        holds = jnp.where(state.phase < 0.5, task.done(inner), task.undone(inner))
        time = state.time + 1
        phase = (time // self.steps % 2).astype(jnp.float32)
        reached = DoneAndUndoneState(inner, phase, time)
        truncated = (time >= 2 * self.steps * self.rounds) & ~seen.terminal
        shown = _shown(seen.observation, phase)
        return reached, Step(shown, holds.astype(jnp.float32), seen.terminal, truncated)


def _shown(observation: Observation, phase: Float[Array, ""]) -> Float[Array, " longer"]:
    return jnp.append(observation, phase)
