"""Mazes by number: some to learn from, and others that were never seen."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, AbstractLevels
from headwater.environments.exploration.fresh_grid import FreshGrid, FreshGridState

_FAR = 1e6


class MazeLevels(AbstractEnvironment, AbstractLevels):
    """Find the way through a maze that is seen whole. The number of a level is all of its layout.

    Rooms stand on every other row and column; passages between neighbours join all of them, without
    a way round, and a share `loops` of the other passages is open too. An episode takes one of the
    levels `start_level`, …, `start_level + num_levels - 1`, each as often as another. Start and
    goal are rooms at least `distance` steps apart. Actions: up, right, down, left; a wall or the
    edge stops (the walk is that of `FreshGrid`). Observation: three maps, row by row: walls, the
    agent, the goal. Reward: one at the goal, which is terminal.

    **Arguments:** `start_level`, `num_levels`: as in Procgen, whose names these are; `size`: rows
    and columns, an odd number; `distance`: from start to goal at least, in steps over the grid
    without its walls; `loops`; `horizon`: steps of an episode.

    Raises `SpecificationError` for a size that is even or below three, levels below zero or none, a
    distance that does not fit, a share outside of [0, 1] or no horizon.
    """

    name: ClassVar[str] = "maze-levels"
    reference_returns: ClassVar[None] = None

    start_level: int | Int[Array, ""] = 0
    num_levels: int = eqx.field(static=True, default=200)
    size: int = eqx.field(static=True, default=7)
    distance: int = eqx.field(static=True, default=4)
    loops: float = eqx.field(static=True, default=0.3)
    horizon: int = eqx.field(static=True, default=40)

    def __check_init__(self):
        if self.size < 3 or self.size % 2 == 0 or self.horizon < 1 or self.num_levels < 1:
            raise SpecificationError(
                f"{self.name}: size = {self.size} must be odd and at least 3, num_levels = "
                f"{self.num_levels} and horizon = {self.horizon} at least 1"
            )
        if isinstance(self.start_level, int) and self.start_level < 0:
            raise SpecificationError(
                f"{self.name}: start_level = {self.start_level} must be at least 0"
            )
        # From the middle room, or one beside the middle, no goal is farther than this.
        farthest = 4 * ((self.size + 1) // 2 // 2)
        if not 1 <= self.distance <= farthest or not 0.0 <= self.loops <= 1.0:
            raise SpecificationError(
                f"{self.name}: distance = {self.distance} must lie between 1 and {farthest}, so "
                f"that every room has a goal for it, and loops = {self.loops:g} in [0, 1]"
            )

    @property
    def spaces(self) -> Spaces:
        columns = 3 * self.size**2
        return Spaces(Box((0.0,) * columns, (1.0,) * columns), Discrete(4), horizon=self.horizon)

    @property
    def levels(self) -> int:
        return self.num_levels

    def level(self, index: int | Int[Array, ""]) -> AbstractEnvironment:
        return dataclasses.replace(self, start_level=self.start_level + index, num_levels=1)

    def reset(self, *, key: PRNGKeyArray):
        level = self.start_level + jax.random.randint(key, (), 0, self.num_levels)
        wall_key, start_key, goal_key = jax.random.split(
            jax.random.fold_in(jax.random.key(0), level), 3
        )
        rooms = jnp.asarray(_rooms(self.size), jnp.int32)
        start = rooms[jax.random.randint(start_key, (), 0, len(rooms))]
        far_enough = jnp.sum(jnp.abs(rooms - start[None]), axis=1) >= self.distance
        goal = rooms[jax.random.categorical(goal_key, jnp.where(far_enough, 0.0, -jnp.inf))]
        state = FreshGridState(
            self._walls(wall_key), goal, start, jnp.asarray(4, jnp.int32), jnp.asarray(0, jnp.int32)
        )
        return state, self._observe(state)

    def step(self, state: FreshGridState, action: Array, *, key: PRNGKeyArray):
        grid = FreshGrid(self.size, distance=1, horizon=self.horizon)
        reached, step = grid.step(state, action, key=key)
        return reached, dataclasses.replace(step, observation=self._observe(reached))

    def _walls(self, key: PRNGKeyArray) -> Bool[Array, "row column"]:
        """Passages join one room after the other to those before, the least of weights first."""
        rooms = _rooms(self.size)
        pairs = _neighbours(self.size)
        between = (rooms[pairs[0]] + rooms[pairs[1]]) // 2
        weight_key, loop_key = jax.random.split(key)
        weights = jax.random.uniform(weight_key, (len(between),))
        first, second = jnp.asarray(pairs, jnp.int32)

        def join(_, carry):
            joined, opened = carry
            leaves = joined[first] != joined[second]
            least = jnp.argmin(jnp.where(leaves, weights, jnp.inf))
            number = jnp.arange(len(rooms))
            added = (number == first[least]) | (number == second[least])
            return joined | added, opened | (jnp.arange(len(between)) == least)

        begun = jnp.arange(len(rooms)) == 0, jnp.zeros(len(between), bool)
        _, opened = jax.lax.fori_loop(0, len(rooms) - 1, join, begun)
        opened = opened | jax.random.bernoulli(loop_key, self.loops, opened.shape)
        walls = np.ones((self.size, self.size), bool)
        walls[rooms[:, 0], rooms[:, 1]] = False
        return jnp.asarray(walls).at[between[:, 0], between[:, 1]].set(~opened)

    def _observe(self, state: FreshGridState) -> Float[Array, " observation"]:
        cells = jnp.arange(self.size**2)
        there = [cells == p[0] * self.size + p[1] for p in (state.position, state.goal)]
        return jnp.concatenate([state.walls.reshape(-1), *there]).astype(jnp.float32)


def _rooms(size: int) -> np.ndarray:
    """Row and column of every room, `[room, 2]`."""
    return 2 * np.stack(np.divmod(np.arange(((size + 1) // 2) ** 2), (size + 1) // 2), axis=1)


def _neighbours(size: int) -> np.ndarray:
    """Pairs of rooms with a passage between them, open or not, `[2, pair]`."""
    number = np.arange(((size + 1) // 2) ** 2).reshape((size + 1) // 2, -1)
    first = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    second = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    return np.stack([first, second])


def steps_to_the_goal(
    walls: Bool[Array, "row column"], goal: Bool[Array, "row column"]
) -> Float[Array, "row column"]:
    """Steps of the shortest way from each cell; a million where there is none."""
    steps = jnp.where(goal, 0.0, _FAR)

    def relax(_, steps):
        around = jnp.pad(steps, 1, constant_values=_FAR)
        near = jnp.minimum(
            jnp.minimum(around[:-2, 1:-1], around[2:, 1:-1]),
            jnp.minimum(around[1:-1, :-2], around[1:-1, 2:]),
        )
        return jnp.where(walls, _FAR, jnp.minimum(steps, near + 1.0))

    return jax.lax.fori_loop(0, walls.size, relax, steps)


def shortest_way(
    task: MazeLevels, observation: Float[Array, " observation"], *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """An action of a shortest way to the goal; of two such actions one is drawn."""
    walls, agent, goal = observation.reshape(3, task.size, task.size) > 0.5
    steps = jnp.pad(steps_to_the_goal(walls, goal), 1, constant_values=_FAR)
    # Up, right, down, left of where the agent is.
    after = jnp.stack([steps[:-2, 1:-1], steps[1:-1, 2:], steps[2:, 1:-1], steps[1:-1, :-2]])
    after = jnp.sum(jnp.where(agent, after, 0.0), axis=(1, 2))
    return jax.random.categorical(key, jnp.where(after == jnp.min(after), 0.0, -jnp.inf))
