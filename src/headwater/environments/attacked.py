"""Tasks whose observations are tampered with before a policy sees them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.method import (
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    Observation,
    UnbatchedAction,
)
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment, Step

Direction = Callable[[Observation], Float[Array, " observation"]]
"""From what is there to where it is moved, each component between -1 and 1."""


class Attacked(AbstractEnvironment):
    """A task that shows its observations moved by an attack; what happens in it stays the same.

    **Arguments:** `task`: in pure JAX; `direction`: of the attack, a module where it holds arrays;
    `radius`: by how much a component moves at most, in halves of its range, or in its units where
    it is unbounded.

    Raises `SpecificationError` for a negative radius.
    """

    task: AbstractEnvironment
    direction: Direction
    radius: float | Float[Array, ""]

    # Written out, since the annotations of the base class are no arguments.
    def __init__(
        self, task: AbstractEnvironment, direction: Direction, radius: float | Float[Array, ""]
    ):
        if isinstance(radius, float | int) and not radius >= 0.0:
            raise SpecificationError(f"radius = {radius:g}: an attack moves by 0 or more")
        self.task, self.direction, self.radius = task, direction, radius

    @property
    def name(self) -> str:
        return f"{self.task.name} (attacked)"

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        return self.task.reference_returns

    @property
    def spaces(self) -> Spaces:
        return self.task.spaces

    def reset(self, *, key: PRNGKeyArray):
        state, observation = self.task.reset(key=key)
        return state, self._shown(observation)

    def step(self, state: PyTree, action: UnbatchedAction, *, key: PRNGKeyArray):
        reached, seen = self.task.step(state, action, key=key)
        shown = self._shown(seen.observation)
        return reached, Step(shown, seen.reward, seen.terminal, seen.truncated)

    def _shown(self, observation: Observation) -> Observation:
        half = jnp.asarray(self.task.spaces.observation.half_ranges, observation.dtype)
        return observation + self.radius * half * jnp.clip(self.direction(observation), -1.0, 1.0)


class Bias(eqx.Module):
    """The same direction everywhere. **Arguments:** `signs`: of each component."""

    signs: Float[Array, " observation"]

    def __call__(self, observation: Observation) -> Float[Array, " observation"]:
        return self.signs


class ValueAttack(eqx.Module):
    """The signs of the slope down which a policy's action is worth less where it really is.

    **Arguments:** `method`: acts and has values; `state`: of the policy that is attacked.

    Raises `SpecificationError` if the method has no values, or does not act.
    """

    method: AbstractMethod
    state: Any

    def __check_init__(self):
        if not (isinstance(self.method, AbstractPolicy) and isinstance(self.method, AbstractValue)):
            raise SpecificationError(
                f"{type(self.method).__name__} has no policy with values that this attack could "
                "lower: take Bias"
            )

    def __call__(self, observation: Observation) -> Float[Array, " observation"]:
        method = self.method
        assert isinstance(method, AbstractPolicy) and isinstance(method, AbstractValue)

        def worth(shown: Observation) -> Float[Array, ""]:
            action = method.act(self.state, shown, key=jax.random.key(0), explore=False)[0]
            return method.value(self.state, observation, action)

        return -jnp.sign(jax.grad(worth)(observation))
