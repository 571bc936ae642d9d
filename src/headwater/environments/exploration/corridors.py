"""Corridors that leave from one place, of which one has a reward at its end."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step


class CorridorsState(eqx.Module):
    """Which corridor, how deep in it (zero: in the middle, in no corridor); steps taken."""

    corridor: Int[Array, ""]
    depth: Int[Array, ""]
    time: Int[Array, ""]


class Corridors(AbstractEnvironment):
    """The same corridors in every episode, and time to see the end of one of them.

    In the middle, action i steps into corridor i. Within corridor i, action i goes one step deeper
    and any other action one step back. Observation: the place as a one-hot vector, then its number.
    Reward: one at the end of corridor `goal`, which is terminal, as are the ends of the others.
    Episodes last two steps more than a corridor is long.

    **Arguments:** `corridors`: how many; `length`: steps to the end of each; `goal`: the corridor
    with the reward.

    Raises `SpecificationError` for sizes below one or a goal that is none of the corridors.
    """

    name: ClassVar[str] = "corridors"
    reference_returns: ClassVar[tuple[float, float]] = (0.0, 1.0)

    corridors: int = eqx.field(static=True, default=5)
    length: int = eqx.field(static=True, default=6)
    goal: int | Int[Array, ""] = 0

    def __check_init__(self):
        if self.corridors < 1 or self.length < 1:
            raise SpecificationError(
                f"{self.name}: corridors = {self.corridors} and length = {self.length} must be at "
                "least one"
            )
        if isinstance(self.goal, int) and not 0 <= self.goal < self.corridors:
            raise SpecificationError(
                f"{self.name}: goal = {self.goal} is none of the corridors 0 … {self.corridors - 1}"
            )

    @property
    def places(self) -> int:
        """How many places there are: the middle, then those of one corridor after the other."""
        return 1 + self.corridors * self.length

    @property
    def spaces(self) -> Spaces:
        low = (0.0,) * (self.places + 1)
        high = (*(1.0,) * self.places, float(self.places - 1))
        return Spaces(Box(low, high), Discrete(self.corridors), horizon=self.length + 2)

    def reset(self, *, key: PRNGKeyArray):
        nothing = jnp.zeros((), jnp.int32)
        state = CorridorsState(nothing, nothing, nothing)
        return state, self._observe(state)

    def step(self, state: CorridorsState, action: Array, *, key: PRNGKeyArray):
        corridor = jnp.where(state.depth == 0, action, state.corridor).astype(jnp.int32)
        depth = state.depth + jnp.where(action == corridor, 1, -1)
        reached = CorridorsState(corridor, depth.astype(jnp.int32), state.time + 1)
        terminal = depth >= self.length
        reward = (terminal & (corridor == self.goal)).astype(jnp.float32)
        truncated = (reached.time >= self.length + 2) & ~terminal
        return reached, Step(self._observe(reached), reward, terminal, truncated)

    def _observe(self, state: CorridorsState) -> Float[Array, " observation"]:
        beyond = 1 + state.corridor * self.length + state.depth - 1
        place = jnp.where(state.depth == 0, 0, beyond)
        shown = jax.nn.one_hot(place, self.places, dtype=jnp.float32)
        return jnp.append(shown, place.astype(jnp.float32))
