"""Compared segments of a log, and its other segments beside them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Action, ComparisonsAndSegments, SegmentComparisons, Segments
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class ComparedSegments(AbstractSource[NoState, SegmentComparisons]):
    """Draws compared pairs uniformly, with replacement.

    The columns of the log are kept as they are, and segments are cut out of them when drawn.

    **Arguments:** `observations`: `[row, observation]`; `actions`: `[row, …]`; `first`, `second`:
    the row in which the segments of each pair begin; `preference`: as of `SegmentComparisons`;
    `length`: steps of a segment; `batch_size`: pairs per draw.
    """

    observations: Float[Array, "row observation"]
    actions: Action
    first: Int[Array, " pair"]
    second: Int[Array, " pair"]
    preference: Float[Array, " pair"]
    length: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        chosen = jax.random.randint(key, (self.batch_size,), 0, self.first.shape[0])
        return state, self.pairs(chosen)

    def pairs(self, chosen: Int[Array, " chosen"]) -> SegmentComparisons:
        """The pairs of these numbers."""
        first, second = (self.segments(begins[chosen]) for begins in (self.first, self.second))
        return SegmentComparisons(first, second, self.preference[chosen])

    def segments(self, begins: Int[Array, " chosen"]) -> Segments:
        """The segments that begin in these rows of the log."""
        rows = begins[:, None] + jnp.arange(self.length)[None, :]
        return Segments(self.observations[rows], self.actions[rows])


class ComparedAndLogged(AbstractSource[NoState, ComparisonsAndSegments]):
    """Draws compared pairs, and as many segments of the log, uniformly with replacement.

    **Arguments:** `compared`: the pairs; `begins`: the rows in which segments may begin.
    """

    compared: ComparedSegments
    begins: Int[Array, " place"]

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        pair_key, place_key = jax.random.split(key)
        _, comparisons = self.compared.draw(state, agent, key=pair_key)
        shape = (self.compared.batch_size,)
        places = jax.random.randint(place_key, shape, 0, self.begins.shape[0])
        logged = self.compared.segments(self.begins[places])
        return state, ComparisonsAndSegments(comparisons, logged)
