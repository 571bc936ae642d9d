"""Tasks whose observations hold a history."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from headwater.core.method import UnbatchedAction
from headwater.core.problems.history import frames_of, history_spaces
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment, Step


class HistoryState(eqx.Module):
    """Where the task is, and the last frames, oldest first."""

    inner: PyTree
    frames: Float[Array, "frame size"]


class WithHistory(AbstractEnvironment):
    """A task whose observations are the last `length` frames of the episode, laid end to end.

    With it every method that acts on observations acts on windows of them; what a frame is says
    `core/problems/history.py`. Logs of the task get the same form from
    `datasets.transform.with_history`.

    **Arguments:** `task`: in pure JAX; `length`: frames, the present one included.

    Raises `SpecificationError` unless `length` is at least 1.
    """

    task: AbstractEnvironment
    length: int = eqx.field(static=True)

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, task: AbstractEnvironment, length: int):
        self.task = task
        self.length = length
        history_spaces(task.spaces, length)

    @property
    def name(self) -> str:
        return f"{self.task.name} ({self.length} frames)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return self.task.reference_returns

    @property
    def spaces(self) -> Spaces:
        return history_spaces(self.task.spaces, self.length)

    def reset(self, *, key: PRNGKeyArray):
        inner, observation = self.task.reset(key=key)
        layout = frames_of(self.spaces)
        assert layout is not None
        nothing = jnp.zeros(self.task.spaces.action_size)
        state = HistoryState(inner, _pushed(jnp.zeros(layout), observation, nothing))
        return state, state.frames.reshape(-1)

    def step(self, state: HistoryState, action: UnbatchedAction, *, key: PRNGKeyArray):
        inner, seen = self.task.step(state.inner, action, key=key)
        spaces = self.task.spaces
        done = jax.nn.one_hot(action, spaces.action_size) if spaces.discrete else action
        reached = HistoryState(inner, _pushed(state.frames, seen.observation, done))
        frames = reached.frames.reshape(-1)
        return reached, Step(frames, seen.reward, seen.terminal, seen.truncated)


def _pushed(frames: Array, observation: Array, action: Array) -> Float[Array, "frame size"]:
    """The frames with a new one at the end, and without the oldest."""
    new = jnp.concatenate([observation, action, jnp.ones(1)])
    return jnp.concatenate([frames[1:], new[None]])
