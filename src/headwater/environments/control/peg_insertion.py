"""Lower a peg into a narrow slot."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.reset_free import AbstractReversible

_STRIDE = 0.1
"""How far a step moves the tip at most, in each direction."""
_TOP, _BOTTOM = 0.4, 0.1
"""Heights of the block and of the bottom of its slot."""
_BLOCK = 0.3
"""Half of the width of the block, beside which the tip can go down to the table, at height 0."""
_SLOT = 0.03
"""Half of the width of the slot in its middle."""
_DOWN = 0.15
"""The peg is in where its tip is in the slot and not above this height."""
_START_SIDE, _START_LOW, _START_HIGH = 0.8, 0.7, 0.9
"""Where episodes begin: this far to the side at most, and between these heights."""


class PegInsertionState(eqx.Module):
    """Where the tip of the peg is, to the side of the slot and above the table; steps taken."""

    side: Float[Array, ""]
    height: Float[Array, ""]
    time: Int[Array, ""]


class PegInsertion(AbstractEnvironment, AbstractReversible):
    """Moves the tip of a peg, seen from the side, into a slot that is narrower than a step is long.

    The slot is in the middle of a block, whose sides stop the tip; beside the block it can go down
    as far as in the slot. Actions: to the side, and up. Observation: where the tip is. Reward: one
    for every step at whose end the peg is in. Nothing is terminal. Episodes begin above the block.

    **Arguments:** `horizon`: steps of an episode. Raises `SpecificationError` if it is below one.
    """

    name: ClassVar[str] = "peg-insertion"
    reference_returns: ClassVar[None] = None

    horizon: int = eqx.field(static=True, default=30)

    def __check_init__(self):
        if self.horizon < 1:
            raise SpecificationError(f"{self.name}: horizon = {self.horizon} must be at least 1")

    @property
    def spaces(self) -> Spaces:
        return Spaces(
            Box((-1.0, 0.0), (1.0, 1.0)), Box((-1.0, -1.0), (1.0, 1.0)), horizon=self.horizon
        )

    def reset(self, *, key: PRNGKeyArray):
        side_key, height_key = jax.random.split(key)
        side = jax.random.uniform(side_key, (), minval=-_START_SIDE, maxval=_START_SIDE)
        height = jax.random.uniform(height_key, (), minval=_START_LOW, maxval=_START_HIGH)
        state = PegInsertionState(side, height, jnp.zeros((), jnp.int32))
        return state, _observe(state)

    def step(self, state: PegInsertionState, action: Array, *, key: PRNGKeyArray):
        move = _STRIDE * jnp.clip(action, -1.0, 1.0)
        # To the side first, then up or down, so that the tip slides along what it hits.
        aim = jnp.clip(state.side + move[0], -1.0, 1.0)
        within = jnp.abs(state.side) <= _SLOT
        stopped = jnp.where(
            within,
            jnp.clip(aim, -_SLOT, _SLOT),
            jnp.where(state.side > 0.0, jnp.maximum(aim, _BLOCK), jnp.minimum(aim, -_BLOCK)),
        )
        side = jnp.where(state.height < _TOP, stopped, aim)
        off = jnp.abs(side)
        floor = jnp.where(off <= _SLOT, _BOTTOM, jnp.where(off < _BLOCK, _TOP, 0.0))
        height = jnp.clip(state.height + move[1], floor, 1.0)
        reached = PegInsertionState(side, height, state.time + 1)
        reward = self.done(reached).astype(jnp.float32)
        truncated = reached.time >= self.horizon
        return reached, Step(_observe(reached), reward, jnp.zeros((), bool), truncated)

    def done(self, state: PegInsertionState) -> Bool[Array, ""]:
        return (jnp.abs(state.side) <= _SLOT) & (state.height <= _DOWN)

    def undone(self, state: PegInsertionState) -> Bool[Array, ""]:
        at_height = (state.height >= _START_LOW) & (state.height <= _START_HIGH)
        return at_height & (jnp.abs(state.side) <= _START_SIDE)


def insertion_action(observation: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """A scripted expert for `PegInsertion`: over the slot, then down."""
    side, height = observation[0], observation[1]
    aligned = jnp.abs(side) <= 0.7 * _SLOT
    above = height >= _TOP
    hover = (_TOP + 0.1 - height) / _STRIDE
    inside = (height < _TOP) & (jnp.abs(side) <= _SLOT)
    up = jnp.where(inside | (above & aligned), -1.0, jnp.where(above, hover, 1.0))
    aside = jnp.where(above | inside, -side / _STRIDE, 0.0)
    return jnp.clip(jnp.stack([aside, up]), -1.0, 1.0)


def withdrawal_action(
    observation: Float[Array, " 2"], side: float | Float[Array, ""]
) -> Float[Array, " 2"]:
    """The script that undoes it: out of the slot, then to a start, `side` beside the slot."""
    middle = 0.5 * (_START_LOW + _START_HIGH)
    up = (middle - observation[1]) / _STRIDE
    aside = jnp.where(observation[1] > _TOP + 0.05, (side - observation[0]) / _STRIDE, 0.0)
    return jnp.clip(jnp.stack([aside, up]), -1.0, 1.0)


def _observe(state: PegInsertionState) -> Float[Array, " observation"]:
    return jnp.stack([state.side, state.height])
