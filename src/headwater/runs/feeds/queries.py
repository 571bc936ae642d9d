"""Evaluations of black boxes, with earlier ones beside them or without."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import (
    AbstractArchiving,
    AbstractMethod,
    AbstractProposer,
    AbstractWarmStart,
    Agent,
    Metrics,
)
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries, Queries, TaskQueries
from headwater.core.source import AbstractSource
from headwater.datasets.black_boxes.earlier_tasks import EarlierTasks, read_earlier_tasks
from headwater.datasets.black_boxes.queries_files import check_queries, read_queries
from headwater.environments.black_boxes.black_box import AbstractBlackBox, AbstractExactBox
from headwater.environments.black_boxes.measured_box import AbstractMeasuredBox
from headwater.runs.feeds.flow import Fed, Flow, Inputs, wrong_data
from headwater.runs.options import Options
from headwater.runs.stage import Begin, Stage
from headwater.sources.meta.tasks import GivenTasks
from headwater.sources.queries import LiveMeasuredQueries, LiveQueries, RememberedQueries


def _querying(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    name, black_box = type(method).__name__, inputs.task
    assert isinstance(black_box, AbstractBlackBox)
    if not isinstance(method, AbstractProposer):
        raise SpecificationError(f"{name} proposes no points, so that none is evaluated")
    _require_idle(name, options)
    assert options.batch_size is not None
    updates = max(1, options.steps // options.batch_size)
    earlier, space = None, black_box.space
    room = updates * options.batch_size
    if inputs.data is not None:
        earlier = earlier_queries(method, inputs.data, space)
        room += len(earlier.value)
    space = dataclasses.replace(space, capacity=room)
    # What the method cannot take (more than exact inference should) is said before it begins.
    jax.eval_shape(lambda key: method.init(space, key=key), jax.random.key(0))
    source: AbstractSource = LiveQueries(black_box, options.batch_size)
    if isinstance(black_box, AbstractExactBox):
        source = RememberedQueries(black_box, options.batch_size, updates * options.batch_size)
    begin = None if earlier is None else after(method, earlier)
    return Fed(Stage("learn", method, source, updates, begin=begin), space)


def _measuring(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    name, black_box = type(method).__name__, inputs.task
    assert isinstance(black_box, AbstractBlackBox)
    if not isinstance(method, AbstractArchiving):
        raise SpecificationError(f"{name} varies no solutions, so that none is evaluated")
    if not isinstance(black_box, AbstractMeasuredBox):
        raise SpecificationError(
            f"{name} needs to know what solutions do, and {black_box.name} says only what they are "
            "worth: take point-reach, or hw.MeasuredBox(function, hw.MeasuredSpace(…))"
        )
    _require_idle(name, options)
    assert options.batch_size is not None
    updates = max(1, options.steps // options.batch_size)
    space = black_box.measured_space.with_capacity(updates * options.batch_size)
    # What the method cannot take (frames that are not there, say) is said before it begins.
    jax.eval_shape(lambda key: method.init(space, key=key), jax.random.key(0))
    source = LiveMeasuredQueries(black_box, options.batch_size)
    return Fed(Stage("learn", method, source, updates), space)


def _from_earlier_tasks(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    tasks: Any = inputs.data
    if isinstance(tasks, Path):
        tasks = read_earlier_tasks(tasks)
    if not isinstance(tasks, EarlierTasks):
        raise wrong_data(method, "evaluations of earlier tasks (hw.EarlierTasks)", tasks)
    assert options.updates is not None
    # What the method cannot take (fewer rows than it searches for, say) is said before it begins.
    jax.eval_shape(
        lambda key: method.update(method.init(tasks.space, key=key), tasks.queries, key=key),
        jax.random.key(0),
    )
    source = GivenTasks(tasks.queries)
    return Fed(Stage("learn", method, source, options.updates), tasks.space)


def _require_idle(name: str, options: Options) -> None:
    if options.random_steps or options.block != 1:
        idle = "random_steps" if options.random_steps else "block"
        raise SpecificationError(f"{name} says itself how it begins: leave out {idle}")


def earlier_queries(method: AbstractMethod, given: object, space: SearchSpace) -> Queries:
    """Evaluations of before, in the unit cube. Raises `DataError` if they are not of `space`."""
    if isinstance(given, Path):
        return read_queries(given, space)
    if not isinstance(given, Queries):
        raise wrong_data(method, "evaluations of a black box (hw.Queries)", given)
    check_queries(given, space)
    return jax.tree.map(jnp.asarray, dataclasses.replace(given, regret=None))


def after(method: AbstractMethod, earlier: Queries) -> Begin:
    """How a stage begins from evaluations of before: as if the method had made them."""

    return lambda outcomes, problem, key: taught(method, problem, earlier, key=key)[0]


def taught(
    method: AbstractMethod,
    space: SearchSpace,
    earlier: Queries,
    learned: Agent | None = None,
    *,
    key: PRNGKeyArray,
) -> tuple[Any, Metrics]:
    """The state after these evaluations and no others, and what the method says of it.

    **Arguments:** `learned`: what an `AbstractWarmStart` goes on from, if anything.
    """
    init_key, update_key = jax.random.split(key)
    if learned is None:
        state = method.init(space, key=init_key)
    else:
        assert isinstance(method, AbstractWarmStart)
        state = method.warm_start(learned, space, key=init_key)
    return method.update(state, earlier, key=update_key)


def told(
    method: AbstractMethod, state: Any, outcomes: MeasuredQueries, *, key: PRNGKeyArray
) -> Any:
    """The state after one more batch, which somebody else evaluated."""
    return method.update(state, outcomes, key=key)[0]


FLOWS: dict[tuple[type, Feed], Flow] = {
    (Queries, Feed.QUERIES): Flow(
        "from evaluations of a black box that it chooses",
        ("env",),
        ("data",),
        ("acting", "queries"),
        {"updates": 1, "batch_size": 1, "seeds": 4, "random_steps": 0, "block": 1},
        _querying,
        True,
    ),
    (TaskQueries, Feed.STORED): Flow(
        "from evaluations of earlier tasks",
        ("data",),
        (),
        ("queries",),
        {"updates": 300, "batch_size": 1, "seeds": 1},
        _from_earlier_tasks,
    ),
    (MeasuredQueries, Feed.QUERIES): Flow(
        "from evaluations of a black box that says what its solutions do",
        ("env",),
        (),
        ("acting", "queries"),
        {"updates": 1, "batch_size": 200, "seeds": 4, "random_steps": 0, "block": 1},
        _measuring,
        True,
    ),
}
"""What methods declare, and how that is brought to them."""
