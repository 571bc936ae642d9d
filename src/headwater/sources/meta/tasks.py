"""Whole tasks: the same ones in each draw, or others."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from headwater.core.finite import FiniteProcess
from headwater.core.method import Agent
from headwater.core.records import TaskQueries
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class GivenTasks(AbstractSource[NoState, Any]):
    """The same tasks in each draw.

    **Arguments:** `tasks`: or what is known of them, with a leading task axis.
    """

    tasks: FiniteProcess | TaskQueries

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, self.tasks


class DrawnTasks(AbstractSource[NoState, FiniteProcess]):
    """New tasks in each draw.

    **Arguments:** `draw_task`: from a key to one task, in pure JAX; `count`: tasks of a draw.
    """

    draw_task: Callable[[PRNGKeyArray], FiniteProcess] = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, jax.vmap(self.draw_task)(jax.random.split(key, self.count))
