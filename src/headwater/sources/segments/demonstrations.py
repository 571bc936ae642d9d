"""Whole demonstrations, all of them in every draw."""

from jaxtyping import PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Demonstrations
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class AllDemonstrations(AbstractSource[NoState, Demonstrations]):
    """All demonstrations in every draw: the source of methods that learn in one step.

    **Arguments:** `data`: any number of them.
    """

    data: Demonstrations

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, self.data
