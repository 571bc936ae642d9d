"""Replay for methods that look through the whole log in each update."""

import dataclasses

from jaxtyping import PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import LoggedPairs, Transitions
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState, Replay
from headwater.sources.weighted import WeightedReplay


class WithWholeLog(AbstractSource[NoState, Transitions]):
    """Draws as `replay` does, and gives all logged observations and actions along with each batch.

    They are the arrays of the replay itself: all seeds share them, and no checkpoint holds them.

    **Arguments:** `replay`: of the log.
    """

    replay: Replay | WeightedReplay

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return self.replay.init(key=key)

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        state, batch = self.replay.draw(state, agent, key=key)
        log = self.replay.data
        return state, dataclasses.replace(batch, whole_log=LoggedPairs(log.observation, log.action))
