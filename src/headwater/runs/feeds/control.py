"""Logged transitions, and acting in an environment."""

import dataclasses
from typing import Any

from headwater.core.errors import DataError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import (
    AbstractHistory,
    AbstractMethod,
    AbstractModelBased,
    AbstractOwnJudge,
    AbstractPolicy,
    AbstractSeveralRewards,
    AbstractStages,
)
from headwater.core.records import (
    ActionWindows,
    AuxiliaryTransitions,
    ComparisonsAndSegments,
    Demonstrations,
    SegmentComparisons,
    StagedTransitions,
    Transition,
    Transitions,
)
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.registry import acted_in
from headwater.runs.feeds.flow import Fed, Flow, Inputs
from headwater.runs.feeds.logged import Logged, compared_and_logged, demonstrations_of
from headwater.runs.options import Options
from headwater.runs.recipes.continual import task_stages
from headwater.runs.recipes.dagger import dagger_stage
from headwater.runs.recipes.model_based import model_stages
from headwater.runs.recipes.online import (
    Task,
    cut_into_stages,
    online_stage,
    rollout_stage,
    rows_per_update,
)
from headwater.runs.stage import Stage
from headwater.sources.acting.unjudged import unjudged
from headwater.sources.rollout import Stream


def _offline(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged = inputs.data
    assert isinstance(logged, Logged) and options.updates and options.batch_size
    if not isinstance(method, AbstractPolicy) and inputs.task is not None:
        raise SpecificationError(f"{type(method).__name__} does not act: leave out env")
    if isinstance(method, AbstractModelBased):
        first, stage = model_stages(
            method, logged, options.updates, options.batch_size, begin=inputs.begin
        )
        return Fed(stage, _spaces(logged, _task(inputs)), before=(first,))
    if inputs.later:
        logs = (logged, *inputs.later)
        *before, stage = task_stages(method, logs, options.updates, options.batch_size)
        return Fed(stage, _spaces(logged, _task(inputs)), before=tuple(before))
    rows = len(options.seed_list) * rows_per_update(method, options.batch_size)
    pieces = logged.updates_per_draw(options.updates, rows)
    source = logged.source(method, pieces * options.batch_size)
    stage = Stage("offline", method, source, options.updates, pieces, inputs.begin)
    return Fed(stage, _spaces(logged, _task(inputs)))


def _labelled(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged, name = inputs.data, type(method).__name__
    assert isinstance(logged, Logged) and options.updates and options.batch_size
    if not isinstance(method, AbstractHistory):
        raise SpecificationError(
            f"{name} learns from windows and does not say how long they are: derive it from "
            "AbstractHistory"
        )
    source = logged.windows(method.history, method.future, options.batch_size)
    stage = Stage("label", method, source, options.updates, 1, inputs.begin, evaluated=False)
    return Fed(stage, logged.spaces)


def _compared(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged, name = inputs.data, type(method).__name__
    assert isinstance(logged, Logged) and options.updates and options.batch_size
    source = logged.compared_segments(name, options.batch_size)
    stage = Stage("label", method, source, options.updates, 1, inputs.begin, evaluated=False)
    return Fed(stage, logged.spaces)


def _demonstrated(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged = inputs.data
    assert isinstance(logged, Logged) and options.updates
    fewest = method.fewest_frames if isinstance(method, AbstractStages) else 1
    source = demonstrations_of(logged, type(method).__name__, fewest)
    stage = Stage("label", method, source, options.updates, 1, inputs.begin, evaluated=False)
    return Fed(stage, logged.spaces)


def _compared_and_logged(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged, name = inputs.data, type(method).__name__
    assert isinstance(logged, Logged) and options.updates and options.batch_size
    compared = logged.compared_segments(name, options.batch_size)
    assert logged.data is not None
    source = compared_and_logged(logged.data, compared)
    stage = Stage("offline", method, source, options.updates, 1, inputs.begin)
    return Fed(stage, _spaces(logged, _task(inputs)))


def _several_rewards(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged, name = inputs.data, type(method).__name__
    assert isinstance(logged, Logged) and options.updates and options.batch_size
    if not isinstance(method, AbstractSeveralRewards):
        raise SpecificationError(
            f"{name} learns from several rewards and does not say which: derive it from "
            "AbstractSeveralRewards"
        )
    source = logged.several_rewards(name, method.auxiliary_rewards, options.batch_size)
    stage = Stage("offline", method, source, options.updates, 1, inputs.begin)
    return Fed(stage, _spaces(logged, _task(inputs)))


def acting(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    """A stage that acts in an environment, perhaps with a log beside it."""
    logged, task = inputs.data, _task(inputs)
    assert task is not None and inputs.budget is not None
    if isinstance(logged, Logged) and options.weights is not None:
        raise SpecificationError(
            f"{type(method).__name__} draws its log uniformly while it acts: leave out weights"
        )
    rows = logged.transitions(method) if isinstance(logged, Logged) else None
    share = 0.5 if options.keep_data is None else options.keep_data
    stage_of = dagger_stage if options.recipe == "dagger" else online_stage
    stage = stage_of(method, task, inputs.budget, data=rows, logged_share=share, begin=inputs.begin)
    if isinstance(method, AbstractOwnJudge):
        if rows is None or not bool((rows.reward > 0.0).any()):
            raise DataError(
                f"{type(method).__name__} learns what success is from logged rows whose reward is "
                "above zero, and the data has none: mark them with a reward of one"
            )
        stage = dataclasses.replace(stage, source=unjudged(stage.source))
    return Fed(stage, _spaces(logged if isinstance(logged, Logged) else None, task))


def _acting_in_stages(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    fed = acting(method, inputs, options)
    assert inputs.budget is not None
    return fed._replace(stage=cut_into_stages(fed.stage, inputs.budget))


def _rolling_out(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task, budget = _task(inputs), inputs.budget
    assert task is not None and budget is not None
    return Fed(rollout_stage(method, task, budget, begin=inputs.begin), task.spaces)


def _streaming(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task, name = _task(inputs), type(method).__name__
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(
            f"{name} predicts and does not act: give the source Stream an `act`, in Python"
        )
    idle = {
        "random_steps": options.random_steps,
        "block": options.block != 1,
        "copies": (options.copies or 1) > 1,
    }
    if unused := [option for option, given in idle.items() if given]:
        raise SpecificationError(
            f"{name} learns from every step when it happens: leave out {unused[0]}"
        )
    assert task is not None
    if not isinstance(task, AbstractEnvironment):
        raise SpecificationError(
            f"{name} learns in environments that are compiled, and {task.name} is none: take "
            "one of Headwater's own, or write it in JAX"
        )
    stage = Stage("online", method, Stream(task), options.steps, begin=inputs.begin)
    return Fed(stage, task.spaces)


def _task(inputs: Inputs) -> Task | None:
    return None if inputs.task is None else acted_in(inputs.task)


def _spaces(logged: Logged | None, task: Task | None) -> Any:
    if logged is None:
        assert task is not None
        return task.spaces
    if task is not None:
        reason = logged.spaces.mismatch(task.spaces, "in the data", "in it")
        if reason is not None:
            raise SpecificationError(f"the data does not fit the environment {task.name}: {reason}")
    horizon = logged.spaces.horizon or (task.spaces.horizon if task is not None else None)
    return dataclasses.replace(logged.spaces, horizon=horizon)


_PAIRS = {"updates": 10_000, "batch_size": 64, "seeds": 4}
_DEMONSTRATED = {"updates": 1, "batch_size": 1, "seeds": 4}
_LOG = {"updates": 100_000, "batch_size": 256, "seeds": 4}

FLOWS: dict[tuple[type, Feed], Flow] = {
    (Transitions, Feed.STORED): Flow(
        "from logged experience", ("data",), ("env",), ("data",), _LOG, _offline
    ),
    (AuxiliaryTransitions, Feed.STORED): Flow(
        "from logged experience with several rewards",
        ("data",),
        ("env",),
        ("data",),
        _LOG,
        _several_rewards,
    ),
    (ActionWindows, Feed.STORED): Flow(
        "from the rows of a log whose action is known", ("data",), (), ("data",), _LOG, _labelled
    ),
    (SegmentComparisons, Feed.STORED): Flow(
        "from compared segments of a log", ("data",), (), ("data", "segments"), _PAIRS, _compared
    ),
    (Demonstrations, Feed.STORED): Flow(
        "from whole demonstrations in a log", ("data",), (), ("data",), _DEMONSTRATED, _demonstrated
    ),
    (ComparisonsAndSegments, Feed.STORED): Flow(
        "from compared segments of a log and its other segments",
        ("data",),
        ("env",),
        ("data", "segments"),
        _PAIRS,
        _compared_and_logged,
    ),
    (Transitions, Feed.ACTING): Flow(
        "online, from what it does and not from a log",
        ("env",),
        (),
        ("acting",),
        _LOG,
        acting,
        True,
    ),
    (StagedTransitions, Feed.ACTING): Flow(
        "online, in stages of whole episodes",
        ("env",),
        (),
        ("acting",),
        _LOG,
        _acting_in_stages,
        True,
    ),
    (Transitions, Feed.ROLLOUT): Flow(
        "online, from what it has just done",
        ("env",),
        (),
        ("acting",),
        {
            "updates": 100_000,
            "batch_size": 1,
            "seeds": 4,
            "random_steps": 0,
            "block": 2_048,
            "copies": 8,
        },
        _rolling_out,
        True,
        rollouts=True,
    ),
    (Transition, Feed.STREAM): Flow(
        "from each step once, as it happens",
        ("env",),
        (),
        ("acting",),
        {**_LOG, "random_steps": 0, "block": 1},
        _streaming,
        True,
    ),
    (Transitions, Feed.BOTH): Flow(
        "online and from a log", ("data", "env"), (), ("data", "acting"), _LOG, acting, True
    ),
}
"""What methods declare, and how that is brought to them."""
