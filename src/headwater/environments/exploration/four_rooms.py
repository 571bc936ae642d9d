"""Walk through four rooms, to a goal or to none."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_PLAN = (
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
    ".....#.....",
    "#.####.....",
    ".....###.##",
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
)
"""The plan of Sutton, Precup and Singh (1999), without the outer walls."""
_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left, as (row, column)."""
CELLS = sum(row.count(".") for row in _PLAN)
"""How many cells are free: they are numbered in the order of reading."""


class FourRoomsState(eqx.Module):
    """Which cell the agent is in, and steps taken."""

    cell: Int[Array, ""]
    time: Int[Array, ""]


class FourRooms(AbstractEnvironment):
    """Four rooms of 104 cells in all, joined by four doors.

    Actions: up, right, down, left; walls stop. Observation: a one-hot vector of the cell. Reward:
    one at the goal, which is terminal. Episodes begin in any cell but the goal.

    **Arguments:** `goal`: number of its cell, in the order of reading, -1 for none: then nothing is
    rewarded and nothing ends, which is what a log without rewards is recorded from; `horizon`:
    steps of an episode.

    Raises `SpecificationError` for a goal that is no cell and a horizon below one.
    """

    name: ClassVar[str] = "four-rooms"
    reference_returns: ClassVar[None] = None

    goal: int | Int[Array, ""] = CELLS - 1
    horizon: int = eqx.field(static=True, default=50)

    def __check_init__(self):
        if isinstance(self.goal, int) and not -1 <= self.goal < CELLS:
            raise SpecificationError(
                f"{self.name}: goal = {self.goal} must lie between 0 and {CELLS - 1}, or be -1 for "
                "none"
            )
        if self.horizon < 1:
            raise SpecificationError(f"{self.name}: horizon = {self.horizon} must be at least 1")

    @property
    def spaces(self) -> Spaces:
        return Spaces(
            Box((0.0,) * CELLS, (1.0,) * CELLS), Discrete(len(_MOVES)), horizon=self.horizon
        )

    def reset(self, *, key: PRNGKeyArray):
        open_to_start = jnp.where(jnp.arange(CELLS) == self.goal, -jnp.inf, 0.0)
        cell = jax.random.categorical(key, open_to_start).astype(jnp.int32)
        state = FourRoomsState(cell, jnp.zeros((), jnp.int32))
        return state, _observe(cell)

    def step(self, state: FourRoomsState, action: Array, *, key: PRNGKeyArray):
        cell = jnp.asarray(next_cells(), jnp.int32)[state.cell, action]
        reached = FourRoomsState(cell, state.time + 1)
        terminal = cell == self.goal
        truncated = (reached.time >= self.horizon) & ~terminal
        return reached, Step(_observe(cell), terminal.astype(jnp.float32), terminal, truncated)


def places() -> np.ndarray:
    """Row and column of every cell, `[cell, 2]`, from the upper left corner."""
    return np.asarray(
        [(i, j) for i, row in enumerate(_PLAN) for j, mark in enumerate(row) if mark == "."]
    )


def next_cells() -> np.ndarray:
    """Where every action leads from every cell, `[cell, action]`."""
    number = {tuple(place): i for i, place in enumerate(places().tolist())}
    return np.asarray(
        [
            [number.get((row + down, column + right), i) for down, right in _MOVES]
            for (row, column), i in number.items()
        ]
    )


def _observe(cell: Int[Array, ""]) -> Float[Array, " observation"]:
    return jax.nn.one_hot(cell, CELLS, dtype=jnp.float32)
