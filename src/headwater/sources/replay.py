"""Uniform replay of transitions held in memory."""

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import AuxiliaryTransitions, Transitions
from headwater.core.source import AbstractSource


class NoState(eqx.Module):
    """The state of a source that remembers nothing."""


class Replay(AbstractSource[NoState, Transitions]):
    """Draws rows uniformly, with replacement, from logged transitions.

    **Arguments:** `data`: every transition, `[row, …]`; `batch_size`: rows per draw.
    """

    data: Transitions
    batch_size: int = eqx.field(static=True, default=256)

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        size = self.data.reward.shape[0]
        rows = jax.random.randint(key, (self.batch_size,), 0, size)
        return state, take(self.data, rows)


class AuxiliaryReplay(AbstractSource[NoState, AuxiliaryTransitions]):
    """Draws rows uniformly, with replacement, from logged transitions with several rewards.

    **Arguments:** `data`: every transition, `[row, …]`; `batch_size`: rows per draw.
    """

    data: AuxiliaryTransitions
    batch_size: int = eqx.field(static=True, default=256)

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        size = self.data.reward.shape[0]
        rows = jax.random.randint(key, (self.batch_size,), 0, size)
        return state, jax.tree.map(lambda column: column[rows], self.data)


def take(data: Transitions, rows) -> Transitions:
    """The given rows of `data`."""
    return jax.tree.map(lambda column: column[rows], data)
