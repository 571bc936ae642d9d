"""Replay in which some rows are drawn more often than others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState, take


class WeightedReplay(AbstractSource[NoState, Transitions]):
    """Draws rows with replacement, each with probability proportional to its weight.

    The weights' cumulative sum is held as 32-bit integers, so that a draw is exact to 2⁻³² of the
    total however many rows there are; a running sum of 32-bit floats would not be.

    **Arguments:** `data`: every transition, `[row, …]`; `weights`: one per row, not negative;
    `batch_size`: rows per draw. Raises `SpecificationError` for weights that are no weights.
    """

    data: Transitions
    upper: UInt32[Array, " row"]
    batch_size: int = eqx.field(static=True)

    def __init__(
        self, data: Transitions, weights: Float[np.ndarray, " row"], batch_size: int = 256
    ):
        self.data = data
        self.upper = _upper_ends(np.asarray(weights, np.float64), data.reward.shape[0])
        self.batch_size = batch_size

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        points = jax.random.bits(key, (self.batch_size,), jnp.uint32)
        # `upper[i]` is the last point that belongs to row i.
        return state, take(self.data, jnp.searchsorted(self.upper, points, side="left"))


def _upper_ends(weights: np.ndarray, rows: int) -> Array:
    if weights.shape != (rows,):
        raise SpecificationError(
            f"there are {rows} transitions but weights of shape {weights.shape}: give one per row"
        )
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not np.any(weights > 0):
        raise SpecificationError("weights must be finite, not negative, and not all zero")
    ends = np.round(np.cumsum(weights) / np.sum(weights) * 2.0**32) - 1.0
    positive = np.flatnonzero(weights > 0)
    ends[positive[-1] :] = 2.0**32 - 1.0
    # A row of weight zero shares its predecessor's end and is never found; those in front of the
    # first positive weight have no predecessor, hence the clip, worth 2⁻³² of the total.
    return jnp.asarray(np.clip(ends, 0.0, 2.0**32 - 1.0).astype(np.uint32))
