"""Tasks whose reward is a program over named features."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.method import Observation, UnbatchedAction
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.reward_programs.language import FUNCTIONS
from headwater.environments.reward_programs.machine import RewardProgram, reward_of


class StepFeatures(eqx.Module):
    """What a reward may speak of: numbers with names, computed from one step.

    **Arguments:** `names`; `compute`: from observation, action and next observation of one step to
    one number for each name.

    Raises `SpecificationError` for names that the language of rewards cannot tell apart.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    compute: Callable[[Observation, UnbatchedAction, Observation], Float[Array, " feature"]] = (
        eqx.field(static=True)
    )

    def __check_init__(self):
        for name in self.names:
            plain = name.isascii() and name.isidentifier() and name == name.lower()
            if not plain or name in FUNCTIONS or self.names.count(name) > 1:
                raise SpecificationError(
                    f"'{name}' cannot be the name of a feature: take one word in lower case, once, "
                    f"and none of {', '.join(FUNCTIONS)}"
                )


class RewardedState(eqx.Module):
    """Where the task is, and what is observed of it."""

    inner: PyTree
    observation: Observation


class RewardedByProgram(AbstractEnvironment):
    """A task with the reward that a program says, and not with its own.

    **Arguments:** `task`: in pure JAX; `program`: its arrays may be mapped over; `features`: which
    the program was translated for; `largest`: what the reward of a step is held within.
    """

    task: AbstractEnvironment
    program: RewardProgram
    features: StepFeatures
    largest: float | Float[Array, ""]

    # Written out, since the annotations of the base class are no arguments.
    def __init__(
        self,
        task: AbstractEnvironment,
        program: RewardProgram,
        features: StepFeatures,
        largest: float | Float[Array, ""] = 10.0,
    ):
        self.task, self.program, self.features = task, program, features
        self.largest = largest

    @property
    def name(self) -> str:
        return f"{self.task.name} (another reward)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return None

    @property
    def spaces(self) -> Spaces:
        return self.task.spaces

    def reset(self, *, key: PRNGKeyArray):
        inner, observation = self.task.reset(key=key)
        return RewardedState(inner, observation), observation

    def step(self, state: RewardedState, action: UnbatchedAction, *, key: PRNGKeyArray):
        inner, seen = self.task.step(state.inner, action, key=key)
        features = self.features.compute(state.observation, action, seen.observation)
        reward = reward_of(self.program, jnp.asarray(features, jnp.float32), self.largest)
        reached = RewardedState(inner, seen.observation)
        return reached, Step(seen.observation, reward, seen.terminal, seen.truncated)
