"""Going where symbols say, with moves that show a step late."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))
"""Up, right, down, left, as (row, column); the last one is no action and begins an episode."""


class LateGridState(eqx.Module):
    """Where the agent is, which move is on its way, the symbol shown, legs done, steps taken."""

    position: Int[Array, " 2"]
    pending: Int[Array, ""]
    symbol: Int[Array, ""]
    legs: Int[Array, ""]
    time: Int[Array, ""]


class LateGrid(AbstractEnvironment):
    """A square grid whose corners are meant by symbols; every move takes place a step late.

    Each symbol means a corner, always the same, which has to be found out. When the corner is
    reached, another symbol is shown; to enter one that is not meant ends the episode. Actions: up,
    right, down, left; what is chosen takes place in the next step, so that it shows two
    observations later. Observation: row and column, in [-1, 1], and the symbol as a one-hot vector.
    Reward: one for the last of the `legs`, which is terminal.

    **Arguments:** `size`: rows and columns; `symbols`: how many; `legs`: corners to reach, one
    after the other; `horizon`: steps of an episode.

    Raises `SpecificationError` for a size below three or anything else below one.
    """

    name: ClassVar[str] = "late-grid"
    reference_returns: ClassVar[None] = None

    size: int = eqx.field(static=True, default=7)
    symbols: int = eqx.field(static=True, default=128)
    legs: int = eqx.field(static=True, default=1)
    horizon: int = eqx.field(static=True, default=24)

    def __check_init__(self):
        if self.size < 3 or min(self.symbols, self.legs, self.horizon) < 1:
            raise SpecificationError(
                f"{self.name}: size = {self.size} must be at least 3, and symbols = {self.symbols},"
                f" legs = {self.legs} and horizon = {self.horizon} at least 1"
            )

    @property
    def spaces(self) -> Spaces:
        low = (-1.0, -1.0, *(0.0,) * self.symbols)
        return Spaces(Box(low, (1.0,) * len(low)), Discrete(4), horizon=self.horizon)

    def corner(self, symbol: Int[Array, ""]) -> Int[Array, " 2"]:
        """The corner that a symbol means, as (row, column)."""
        known = np.random.default_rng(0).integers(0, 4, self.symbols)
        meant = jnp.asarray(known, jnp.int32)[symbol]
        return (self.size - 1) * jnp.stack([meant // 2, meant % 2])

    def moved(self, position: Int[Array, " 2"], action: Int[Array, ""]) -> Int[Array, " 2"]:
        """Where a move leads."""
        aim = position + jnp.asarray(_MOVES, jnp.int32)[action]
        return jnp.clip(aim, 0, self.size - 1)

    def wrong(self, position: Int[Array, " 2"], symbol: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether this is a corner, and not the one that the symbol means."""
        edge = (position == 0) | (position == self.size - 1)
        return jnp.all(edge) & jnp.any(position != self.corner(symbol))

    def reset(self, *, key: PRNGKeyArray):
        place_key, symbol_key = jax.random.split(key)
        nothing = jnp.zeros((), jnp.int32)
        state = LateGridState(
            jax.random.randint(place_key, (2,), 1, self.size - 1, jnp.int32),
            jnp.full((), len(_MOVES) - 1, jnp.int32),
            jax.random.randint(symbol_key, (), 0, self.symbols, jnp.int32),
            nothing,
            nothing,
        )
        return state, self._observe(state)

    def step(self, state: LateGridState, action: Array, *, key: PRNGKeyArray):
        position = self.moved(state.position, state.pending)
        entered = jnp.any(position != state.position)
        failed = entered & self.wrong(position, state.symbol)
        arrived = jnp.all(position == self.corner(state.symbol))
        legs = state.legs + arrived.astype(jnp.int32)
        fresh = jax.random.randint(key, (), 0, self.symbols, jnp.int32)
        done = legs >= self.legs
        symbol = jnp.where(arrived & ~done, fresh, state.symbol)
        reached = LateGridState(position, action.astype(jnp.int32), symbol, legs, state.time + 1)
        terminal = failed | done
        truncated = (reached.time >= self.horizon) & ~terminal
        return reached, Step(self._observe(reached), done.astype(jnp.float32), terminal, truncated)

    def _observe(self, state: LateGridState) -> Float[Array, " observation"]:
        place = 2.0 * state.position.astype(jnp.float32) / (self.size - 1) - 1.0
        return jnp.concatenate([place, jax.nn.one_hot(state.symbol, self.symbols)])


def towards_the_corner(
    task: LateGrid, state: LateGridState, *, key: PRNGKeyArray, errors: float = 0.0
) -> Int[Array, ""]:
    """The action of who knows all symbols and what is on its way; a share is at random.

    Of two moves that bring the agent nearer one is drawn, and none enters a corner not meant.
    """
    error_key, any_key, choice_key = jax.random.split(key, 3)
    place, goal = task.moved(state.position, state.pending), task.corner(state.symbol)

    def useful(action):
        after = task.moved(place, action)
        nearer = jnp.sum(jnp.abs(after - goal)) < jnp.sum(jnp.abs(place - goal))
        return nearer & ~task.wrong(after, state.symbol)

    good = jax.vmap(useful)(jnp.arange(4))
    good = good | ~jnp.any(good)
    chosen = jax.random.categorical(choice_key, jnp.where(good, 0.0, -jnp.inf))
    slip = jax.random.uniform(error_key) < errors
    return jnp.where(slip, jax.random.randint(any_key, (), 0, 4), chosen).astype(jnp.int32)
