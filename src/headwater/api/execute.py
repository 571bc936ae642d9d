"""Carry out what a specification asks, in memory or in a directory."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api.data_notes import tell_of
from headwater.api.run import UPSTREAM_DIRECTORY, Run, open_run, state_shapes
from headwater.api.specification import (
    UPSTREAM,
    Plan,
    Specification,
    check_numbers,
    plan,
    updates_of,
)
from headwater.core.errors import RunError, SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.write import write
from headwater.evaluation.returns import evaluate_returns
from headwater.ops.products import check_precision, multiplying
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.directory import RunDirectory
from headwater.runs.loop import run
from headwater.runs.recipes import Task

_DATA_DIRECTORY = "data"
"""Where a run's directory holds data that was given as an object."""


def execute(
    asked: Specification,
    *,
    out: str | Path | None,
    data: Dataset | None = None,
    task: Task | None = None,
    upstream: Run | None = None,
    progress: bool | None = None,
) -> Run:
    """The run that `asked` describes, from its beginning.

    **Arguments:** `out`: the run's directory, which must not exist; `None` keeps it in memory;
    `data`, `task`, `upstream`: as objects; data without a file is copied into the directory, and so
    is the part of `upstream` that is needed, so that the run can go on without them.
    """
    check_numbers(asked)
    check_precision(asked.precision)
    if out is not None:
        RunDirectory.refuse(out)
    planned = plan(asked, None, data, task)
    # Now, since a method that cannot begin should leave no directory behind.
    asked = complete(asked, planned, upstream)
    directory = None
    if out is not None:
        if data is not None and asked.data is not None and asked.data.path is None:
            kept = dataclasses.replace(asked.data, path=_DATA_DIRECTORY)
            asked = dataclasses.replace(asked, data=kept)

        def fill(temporary: Path) -> None:
            if data is not None and asked.data is not None and asked.data.path == _DATA_DIRECTORY:
                write(data, temporary / _DATA_DIRECTORY, "columns")
            if upstream is not None:
                save_run(upstream, temporary / UPSTREAM_DIRECTORY)

        directory = RunDirectory.create(out, asked.to_json(), fill)
    if asked.data is not None and progress is not False:
        tell_of(data, asked.data.path)
    return _carry_out(asked, planned, directory, upstream, progress)


def complete(asked: Specification, planned: Plan, upstream: Run | None = None) -> Specification:
    """`asked` with what its data and its task say of the problem.

    Raises `SpecificationError` if the method cannot begin there.
    """
    references = planned.references if asked.references is None else asked.references
    asked = dataclasses.replace(asked, spaces=planned.problem.to_json(), references=references)
    earlier = {} if upstream is None else {UPSTREAM: upstream.outcome}
    state_shapes(asked, asked.method.build(), planned.problem, earlier)
    return asked


def resume(
    path: str | Path,
    *,
    data: Dataset | None = None,
    env: Task | str | None = None,
    progress: bool | None = None,
) -> Run:
    """Continues a run where its newest checkpoint left it; a finished run is returned as it is.

    **Arguments:** `path`: its directory; `data`: if it cannot be found where it was; `env`: the
    environment if it was passed as an object, or its name if a module is to be imported for it.

    Raises `RunError` if there is no run at `path` or it cannot be continued, `DataError` if its
    data has changed, `SpecificationError` for the name of another environment.
    """
    directory = RunDirectory.open(path)
    asked = Specification.from_json(directory.specification, str(path))
    if asked.spaces is None:
        raise RunError(
            f"{path} was not made by train or adapt: give its own command again to continue it"
        )
    if isinstance(env, str):
        if asked.task is None or asked.task.name != env:
            begun = "none" if asked.task is None else asked.task.name
            raise SpecificationError(f"{path} was begun in the environment {begun}, not in {env}")
        env = asked.task.build(named=True)
    if checkpoint.find(directory.checkpoints):
        found = open_run(path)
        if found.finished:
            return found
    try:
        check_precision(asked.precision)
    except SpecificationError as error:
        raise SpecificationError(
            f"{path} was begun with precision {asked.precision}, and goes on only with it: {error}"
        ) from None
    upstream = None
    if (directory.path / UPSTREAM_DIRECTORY / "run.json").is_file():
        upstream = open_run(directory.path / UPSTREAM_DIRECTORY)
    planned = plan(asked, directory.path, data, env)
    return _carry_out(asked, planned, directory, upstream, progress)


def save_run(finished: Run, path: Path) -> None:
    """Writes what is needed to build on `finished` into a new directory at `path`."""

    def fill(temporary: Path) -> None:
        position = Position(0, UPSTREAM, updates_of(finished.specification))
        parts = {"method": checkpoint.flatten(finished.state)}
        checkpoint.save(temporary / "checkpoints", position, parts)
        if finished.path is not None:
            for name in ("metrics.jsonl", "evaluations.jsonl"):
                if (finished.path / name).is_file():
                    shutil.copy(finished.path / name, temporary / name)
            if (finished.path / UPSTREAM_DIRECTORY).is_dir():
                shutil.copytree(finished.path / UPSTREAM_DIRECTORY, temporary / UPSTREAM_DIRECTORY)

    RunDirectory.create(path, finished.specification.to_json(), fill)


def _carry_out(
    asked: Specification,
    planned: Plan,
    directory: RunDirectory | None,
    upstream: Run | None,
    progress: bool | None,
) -> Run:
    task = planned.task

    def evaluate(method, states, key) -> np.ndarray:
        assert task is not None
        # As whoever evaluates or exports the run later: what was learned is not rounded.
        with multiplying("default"):
            return evaluate_returns(method, states, task, episodes=asked.episodes, key=key)

    earlier: Any = None if upstream is None else {UPSTREAM: upstream.outcome}
    try:
        with multiplying(asked.precision):
            result = run(
                planned.stages,
                planned.problem,
                seeds=asked.seeds,
                seed=asked.seed,
                directory=directory,
                evaluate=None if task is None else evaluate,
                evaluations=asked.evaluations,
                progress=progress,
                earlier=earlier,
            )
    except KeyboardInterrupt as stop:
        if directory is not None:
            stop.add_note(f"continue with `headwater resume {directory.path}`")
        raise
    outcome = result.outcomes[planned.stages[-1].name]
    return Run(
        asked,
        outcome.method,
        outcome.state,
        planned.problem,
        result.metrics,
        result.evaluations,
        None if directory is None else directory.path,
        upstream=upstream,
    )
