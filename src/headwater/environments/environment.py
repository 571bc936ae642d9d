"""What an environment is: in pure JAX, or on the host."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from headwater.core.method import Observation, UnbatchedAction
from headwater.core.spaces import Spaces


class Step(eqx.Module):
    """What one step of an environment shows.

    **Arguments:** `observation`: of the state reached, also at the end of an episode; `reward`;
    `terminal`: the process ended; `truncated`: the time limit was reached instead.
    """

    observation: Observation
    reward: Float[Array, ""]
    terminal: Bool[Array, ""]
    truncated: Bool[Array, ""]


class AbstractEnvironment(eqx.Module):
    """An environment in pure JAX, unbatched; `interact` adds copies and resets.

    Actions are canonical: in [-1, 1], or an integer. A class that sets `name` as a `ClassVar` is
    found by `make`, and is made without arguments.
    """

    name: eqx.AbstractVar[str]
    reference_returns: eqx.AbstractVar[tuple[float, float] | None]
    """Mean undiscounted returns of a uniformly random and of an expert policy, where known."""

    @property
    @abc.abstractmethod
    def spaces(self) -> Spaces:
        """Observations, actions and time limit."""

    @abc.abstractmethod
    def reset(self, *, key: PRNGKeyArray) -> tuple[PyTree, Observation]:
        """The state that starts an episode, and its observation."""

    @abc.abstractmethod
    def step(
        self, state: PyTree, action: UnbatchedAction, *, key: PRNGKeyArray
    ) -> tuple[PyTree, Step]:
        """The next state and what is seen of it."""


class AbstractLevels(eqx.Module):
    """A capability of environments: an episode takes one of levels that are numbered."""

    @property
    @abc.abstractmethod
    def levels(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def level(self, index: int | Int[Array, ""]) -> AbstractEnvironment:
        """The task whose only level is number `index`; from `levels` on, one held out of it."""


class AbstractAuxiliaryRewards(eqx.Module):
    """A capability of environments: a step brings several rewards, of which `Step` has the main."""

    @property
    @abc.abstractmethod
    def auxiliary_rewards(self) -> tuple[str, ...]:
        """What the others are called."""

    @abc.abstractmethod
    def auxiliary(self, state: PyTree) -> Float[Array, " auxiliary"]:
        """What the step that led to this state brought of each."""


class AbstractExpert(eqx.Module):
    """A capability of environments: it is known what somebody does who sees all of the state."""

    @abc.abstractmethod
    def expert_action(self, state: PyTree, *, key: PRNGKeyArray) -> UnbatchedAction:
        """What an expert does in this state, which may show more than the observation does."""


class Sketch(NamedTuple):
    """What a state looks like, as plain shapes in the units of `AbstractDrawable.view`.

    **Arguments:** `lines`: from where to where, as (x, y); `discs`, `rings`: x, y and radius of
    what moves and is filled, and of what stands and is not.
    """

    lines: Float[Array, "line 2 2"]
    discs: Float[Array, "disc 3"]
    rings: Float[Array, "ring 3"]


class AbstractDrawable(eqx.Module):
    """A capability of environments: a state can be drawn."""

    @property
    @abc.abstractmethod
    def view(self) -> tuple[float, float, float, float]:
        """What a picture shows: its left, right, lower and upper end."""

    @abc.abstractmethod
    def sketch(self, state: PyTree) -> Sketch:
        """What one state looks like."""

    @abc.abstractmethod
    def observed(self, observation: Observation) -> PyTree:
        """A state in which this is observed, so that logged observations can be drawn."""


class HostStep(NamedTuple):
    """What one step of all copies of a host environment shows (NumPy, leading `copy` axis).

    **Arguments:** `observation`: what to act on next, already of the new episode where one ended;
    `next_observation`: of the state reached, also at the end of an episode; `reward`; `terminal`;
    `truncated`; `valid`: false where the simulator only reset itself and nothing was learned.
    """

    observation: Float[np.ndarray, "copy observation"]
    next_observation: Float[np.ndarray, "copy observation"]
    reward: Float[np.ndarray, " copy"]
    terminal: Bool[np.ndarray, " copy"]
    truncated: Bool[np.ndarray, " copy"]
    valid: Bool[np.ndarray, " copy"]


class AbstractHostEnvironments(abc.ABC):
    """Several open copies of one host environment. Actions are canonical."""

    exact: bool
    """Whether `save` and `load` continue exactly, to the bit."""

    @abc.abstractmethod
    def reset(self, seeds: Int[np.ndarray, " copy"]) -> Float[np.ndarray, "copy observation"]:
        """Starts an episode in every copy. Later episodes' seeds follow from these."""

    @abc.abstractmethod
    def step(self, actions: np.ndarray) -> HostStep:
        """One step in every copy; ended episodes are followed by new ones."""

    @abc.abstractmethod
    def save(self) -> dict[str, np.ndarray]:
        """Where every copy is, as named arrays."""

    @abc.abstractmethod
    def load(self, saved: dict[str, np.ndarray]) -> Float[np.ndarray, "copy observation"]:
        """Brings every copy back to where `save` left it; returns what to act on next."""

    @abc.abstractmethod
    def close(self) -> None:
        """Releases the simulators."""


class AbstractHostTask(eqx.Module):
    """A task whose simulator runs on the host: knows its spaces and opens copies of itself."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name that `headwater.environments.make` knows it by."""

    @property
    @abc.abstractmethod
    def spaces(self) -> Spaces:
        """Observations, actions (with the user's bounds) and time limit."""

    @abc.abstractmethod
    def open(self, copies: int) -> AbstractHostEnvironments:
        """`copies` simulators, not yet reset."""

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        """Published mean returns of a random and an expert policy, where there are any."""
        return None


def describe_task(task: AbstractEnvironment | AbstractHostTask) -> dict[str, Any]:
    """Name, sizes and horizon of a task, for people and for JSON."""
    spaces = task.spaces
    return {
        "name": task.name,
        "observation_size": spaces.observation_size,
        "action_size": spaces.action_size,
        "actions": "discrete" if spaces.discrete else "continuous",
        "horizon": spaces.horizon,
    }
