"""A grid of which only the walls around are seen, so that most of its cells look alike."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left, as (row, column)."""


class AliasedGridState(eqx.Module):
    """Where the agent is, whether it began on the left, and steps taken."""

    position: Int[Array, " 2"]
    left: Float[Array, ""]
    time: Int[Array, ""]


class AliasedGrid(AbstractEnvironment):
    """Walk from an upper corner of a square grid to its lower right corner, nearly blind.

    Observation: which of the four neighbours are outside the grid. The history of observations and
    actions tells the cell, and no shorter one does. Actions: up, right, down, left. Reward: one in
    the goal, which is terminal.

    **Arguments:** `size`: rows and columns; `left_share`: how probably an episode begins on the
    left; `visible`: show row, column and whether the episode began on the left as well; `horizon`:
    steps of an episode.

    Raises `SpecificationError` for a size below two, no horizon or a share outside of [0, 1].
    """

    name: ClassVar[str] = "aliased-grid"
    reference_returns: ClassVar[None] = None

    size: int = eqx.field(static=True, default=5)
    left_share: float = eqx.field(static=True, default=0.5)
    visible: bool = eqx.field(static=True, default=False)
    horizon: int = eqx.field(static=True, default=12)

    def __check_init__(self):
        if self.size < 2 or self.horizon < 1 or not 0.0 <= self.left_share <= 1.0:
            raise SpecificationError(
                f"{self.name}: size = {self.size} must be at least 2, horizon = {self.horizon} at "
                f"least 1 and left_share = {self.left_share:g} in [0, 1]"
            )

    @property
    def spaces(self) -> Spaces:
        shown = (*(1.0,) * 4, *((self.size - 1.0, self.size - 1.0, 1.0) if self.visible else ()))
        return Spaces(Box((0.0,) * len(shown), shown), Discrete(4), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        left = jax.random.bernoulli(key, self.left_share)
        column = jnp.where(left, 0, self.size - 1)
        position = jnp.stack([jnp.zeros((), jnp.int32), column.astype(jnp.int32)])
        state = AliasedGridState(position, left.astype(jnp.float32), jnp.zeros((), jnp.int32))
        return state, self._observe(state)

    def step(self, state: AliasedGridState, action: Array, *, key: PRNGKeyArray):
        aim = state.position + jnp.asarray(_MOVES, jnp.int32)[action]
        position = jnp.clip(aim, 0, self.size - 1)
        reached = AliasedGridState(position, state.left, state.time + 1)
        terminal = jnp.all(position == self.size - 1)
        truncated = (reached.time >= self.horizon) & ~terminal
        seen = self._observe(reached)
        return reached, Step(seen, terminal.astype(jnp.float32), terminal, truncated)

    def _observe(self, state: AliasedGridState) -> Float[Array, " observation"]:
        around = state.position[None] + jnp.asarray(_MOVES, jnp.int32)
        closed = jnp.any((around < 0) | (around >= self.size), axis=-1).astype(jnp.float32)
        if not self.visible:
            return closed
        place = state.position.astype(jnp.float32)
        return jnp.concatenate([closed, place, state.left[None]])
