"""One attempt to press a cable into a clip."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, AbstractExpert, Step

_REACH = 0.5
"""How far a step moves the cable to the side at most."""
_DESCENT = 0.125
"""How far a step lowers it at most."""
_WIDEST = 2.0
"""How far to the side the cable can be."""
_TOLERANCE = 0.1
"""How far from the middle of the clip the cable still slides in."""
_JAMMED = 0.176
"""How far from it the cable gets stuck on the clip, instead of slipping past it."""


class ClipInsertionState(eqx.Module):
    """Where the cable is, to the side of the clip and above it; steps taken."""

    side: Float[Array, ""]
    height: Float[Array, ""]
    time: Int[Array, ""]


class ClipInsertion(AbstractEnvironment, AbstractExpert):
    """Lowers a cable into a clip, while it slips to the side at random.

    Actions: to the side, and down (-1 stays at this height). Observation: how far the cable is to
    the side of the clip and above it. It ends when the cable is down: reward one where it slid in,
    zero where it is stuck on the clip or fell beside it. With the default slip, who sees where it
    is succeeds in 65 of 100 attempts, in 25 it gets stuck and in 10 it falls.

    **Arguments:** `slip`: deviation of what each step moves it to the side; `horizon`: steps of an
    attempt.

    Raises `SpecificationError` for a negative slip or a horizon below one.
    """

    name: ClassVar[str] = "clip-insertion"
    reference_returns: ClassVar[None] = None

    slip: float | Float[Array, ""] = 0.107
    horizon: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        if self.horizon < 1 or (isinstance(self.slip, int | float) and self.slip < 0.0):
            raise SpecificationError(
                f"{self.name}: slip = {self.slip} must not be negative, and horizon = "
                f"{self.horizon} must be at least 1"
            )

    @property
    def spaces(self) -> Spaces:
        return Spaces(
            Box((-_WIDEST, -_DESCENT), (_WIDEST, 1.0)),
            Box((-1.0, -1.0), (1.0, 1.0)),
            horizon=self.horizon,
        )

    def reset(self, *, key: PRNGKeyArray):
        side = jax.random.uniform(key, (), minval=-1.0, maxval=1.0)
        state = ClipInsertionState(side, jnp.ones(()), jnp.zeros((), jnp.int32))
        return state, _observe(state)

    def step(self, state: ClipInsertionState, action: Array, *, key: PRNGKeyArray):
        moved = state.side + _REACH * action[0] + self.slip * jax.random.normal(key)
        height = state.height - _DESCENT * 0.5 * (1.0 + action[1])
        side = jnp.clip(moved, -_WIDEST, _WIDEST)
        reached = ClipInsertionState(side, height, state.time + 1)
        terminal = height <= 0.0
        truncated = (reached.time >= self.horizon) & ~terminal
        reward = self.inserted(reached).astype(jnp.float32)
        return reached, Step(_observe(reached), reward, terminal, truncated)

    def expert_action(self, state: ClipInsertionState, *, key: PRNGKeyArray):
        aside = jnp.clip(-state.side / _REACH, -1.0, 1.0)
        return jnp.stack([aside, jnp.ones(())])

    def inserted(self, state: ClipInsertionState) -> Bool[Array, ""]:
        """Whether the cable is in the clip."""
        return (state.height <= 0.0) & (jnp.abs(state.side) <= _TOLERANCE)

    def fallen(self, state: ClipInsertionState) -> Bool[Array, ""]:
        """Whether it fell beside the clip; what is neither in it nor fallen is stuck."""
        return (state.height <= 0.0) & (jnp.abs(state.side) > _JAMMED)


def _observe(state: ClipInsertionState) -> Float[Array, " observation"]:
    return jnp.stack([state.side, state.height])
