"""Find the goal of a grid whose walls, start and goal may be new in every episode."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left, as (row, column)."""
_WALL_SHARE = 0.12


class FreshGridState(eqx.Module):
    """The layout of this episode; where the agent is, and how it came there; steps taken."""

    walls: Bool[Array, "row column"]
    goal: Int[Array, " 2"]
    position: Int[Array, " 2"]
    last_action: Int[Array, ""]
    time: Int[Array, ""]


class FreshGrid(AbstractEnvironment):
    """A square grid of another layout in each episode, seen one cell far.

    About an eighth of the cells are walls. Start and goal are drawn too, at least `distance` steps
    apart; the cells of one bent way between them are never walls. Actions: up, right, down, left; a
    wall or the edge stops. Observation: a one-hot vector of which of the four neighbours are closed
    and of the last action, then row and column: what `situations` counts is all that a policy can
    use in a new layout, and the last two are what a bonus can count. Reward: one at the goal, which
    is terminal.

    **Arguments:** `size`: rows and columns; `distance`: from start to goal at least, in steps;
    `contexts`: how many layouts there are, the same for everyone; 0 draws each one anew;
    `horizon`: steps of an episode.

    Raises `SpecificationError` for sizes below one or a distance that does not fit into the grid.
    """

    name: ClassVar[str] = "fresh-grid"
    reference_returns: ClassVar[None] = None

    size: int = eqx.field(static=True, default=10)
    distance: int = eqx.field(static=True, default=6)
    contexts: int = eqx.field(static=True, default=0)
    horizon: int = eqx.field(static=True, default=50)

    def __check_init__(self):
        if self.size < 2 or self.horizon < 1 or self.contexts < 0:
            raise SpecificationError(
                f"{self.name}: size = {self.size} must be at least 2, horizon = {self.horizon} at "
                f"least 1 and contexts = {self.contexts} at least 0"
            )
        # From the middle of a grid no goal is farther than this.
        farthest = 2 * (self.size // 2)
        if not 1 <= self.distance <= farthest:
            raise SpecificationError(
                f"{self.name}: distance = {self.distance} must lie between 1 and {farthest}, so "
                f"that every cell of a grid of size {self.size} has a goal for it"
            )

    @property
    def situations(self) -> int:
        """How many leading columns there are: closed neighbours (16) times last actions (5)."""
        return 2 ** len(_MOVES) * (len(_MOVES) + 1)

    @property
    def spaces(self) -> Spaces:
        low = (0.0,) * (self.situations + 2)
        high = (*(1.0,) * self.situations, *(self.size - 1.0,) * 2)
        return Spaces(Box(low, high), Discrete(len(_MOVES)), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        if self.contexts:
            index = jax.random.randint(key, (), 0, self.contexts)
            key = jax.random.fold_in(jax.random.key(0), index)
        wall_key, start_key, goal_key = jax.random.split(key, 3)
        start = jax.random.randint(start_key, (2,), 0, self.size, jnp.int32)
        row, column = jnp.indices((self.size, self.size))
        away = jnp.abs(row - start[0]) + jnp.abs(column - start[1])
        far_enough = jnp.where(away >= self.distance, 0.0, -jnp.inf)
        goal = jax.random.categorical(goal_key, far_enough.reshape(-1))
        goal = jnp.stack(jnp.divmod(goal, self.size)).astype(jnp.int32)
        walls = jax.random.bernoulli(wall_key, _WALL_SHARE, (self.size, self.size))
        # Along the row of the start, then along the column of the goal.
        within = lambda x, a, b: (x >= jnp.minimum(a, b)) & (x <= jnp.maximum(a, b))
        along_row = (row == start[0]) & within(column, start[1], goal[1])
        along_column = (column == goal[1]) & within(row, start[0], goal[0])
        walls = walls & ~along_row & ~along_column
        none = jnp.full((), len(_MOVES), jnp.int32)
        state = FreshGridState(walls, goal, start, none, jnp.zeros((), jnp.int32))
        return state, self._observe(state)

    def step(self, state: FreshGridState, action: Array, *, key: PRNGKeyArray):
        aim = state.position + jnp.asarray(_MOVES, jnp.int32)[action]
        position = jnp.where(self._closed(state.walls, aim), state.position, aim)
        reached = FreshGridState(
            state.walls, state.goal, position, action.astype(jnp.int32), state.time + 1
        )
        terminal = jnp.all(position == state.goal)
        truncated = (reached.time >= self.horizon) & ~terminal
        reward = terminal.astype(jnp.float32)
        return reached, Step(self._observe(reached), reward, terminal, truncated)

    def _closed(self, walls: Array, cell: Int[Array, " 2"]) -> Bool[Array, ""]:
        inside = jnp.clip(cell, 0, self.size - 1)
        return jnp.any(inside != cell) | walls[inside[0], inside[1]]

    def _observe(self, state: FreshGridState) -> Float[Array, " observation"]:
        around = jnp.stack(
            [self._closed(state.walls, state.position + jnp.asarray(m)) for m in _MOVES]
        )
        closed = jnp.sum(around * jnp.asarray([1, 2, 4, 8]))
        situation = closed * (len(_MOVES) + 1) + state.last_action
        shown = jax.nn.one_hot(situation, self.situations, dtype=jnp.float32)
        return jnp.concatenate([shown, state.position.astype(jnp.float32)])
