"""One task after the other: a stage for each log, which goes on from what the last one left."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractContinual, AbstractMethod
from headwater.core.records import TaskLog
from headwater.core.spaces import Spaces
from headwater.datasets.dataset import Dataset
from headwater.runs.feeds.logged import Logged
from headwater.runs.stage import Outcomes, Stage


class NextTask(eqx.Module):
    """A `Stage.begin` that goes on from the stage called `upstream` with the next task.

    **Arguments:** `method`: that learns both; `log`: of the task that ends; `problem`: the next.
    """

    upstream: str = eqx.field(static=True)
    method: AbstractMethod
    log: TaskLog
    problem: Spaces

    def __call__(self, outcomes: Outcomes, problem: Any, key: PRNGKeyArray) -> Any:
        assert isinstance(self.method, AbstractContinual)
        state = outcomes[self.upstream].state
        return self.method.next_task(state, self.log, self.problem, key=key)


def task_log(data: Dataset) -> TaskLog:
    """The whole log on the device, with the first row of each episode."""
    rows = jax.tree.map(jnp.asarray, data.transitions())
    return TaskLog(rows, jnp.asarray(data.episode_starts[:-1]))


def check_learns_tasks(method: AbstractMethod, tasks: int) -> None:
    """Raises `SpecificationError` unless `method` learns so many tasks one after the other."""
    name = type(method).__name__
    if not isinstance(method, AbstractContinual):
        raise SpecificationError(
            f"{name} learns one task, from one log, and {tasks} were given: give it one of them, "
            "or learn them one after the other with OER"
        )
    if tasks > method.num_tasks:
        raise SpecificationError(
            f"{tasks} logs were given, of a task each, but {name} has room for {method.num_tasks}: "
            f"set num_tasks to {tasks}"
        )


def task_stages(
    method: AbstractMethod, logs: Sequence[Logged], updates: int, batch_size: int
) -> list[Stage]:
    """A stage for each task, in this order.

    The policy of the last one is evaluated, which is the only one that a run knows where to act.

    **Arguments:** `method`: that learns as many tasks; `logs`: one of each task; `updates`: in each
    task; `batch_size`: rows of an update.

    Raises `SpecificationError`, naming the task, for logs whose spaces differ or that stay on the
    disk.
    """
    name = type(method).__name__
    for number, logged in enumerate(logs, 1):
        if logged.data is None:
            raise SpecificationError(
                f"{name} looks through the whole log of a task when it ends, so that it has to be "
                "in memory: leave out from_disk"
            )
        reason = logs[0].spaces.mismatch(logged.spaces, "in task 1", f"in task {number}")
        if reason is not None:
            place = "" if logged.path is None else f" ({logged.path})"
            raise SpecificationError(
                f"task {number}{place} does not fit task 1: {reason}; tasks that are learned one "
                "after the other have the same spaces"
            )
    stages: list[Stage] = []
    for number, logged in enumerate(logs, 1):
        begin = None
        if stages:
            previous = logs[number - 2].data
            assert previous is not None
            begin = NextTask(stages[-1].name, method, task_log(previous), logged.spaces)
        source = logged.source(method, batch_size)
        last = number == len(logs)
        stages.append(Stage(f"task {number}", method, source, updates, begin=begin, evaluated=last))
    return stages
