"""Evaluations of earlier tasks, all of them in each draw."""

from jaxtyping import PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import TaskQueries
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class EarlierTables(AbstractSource[NoState, TaskQueries]):
    """The same tables in each draw. **Arguments:** `tables`: one for each task."""

    tables: TaskQueries

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, self.tables
