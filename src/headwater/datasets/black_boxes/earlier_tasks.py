"""Evaluations of earlier tasks, from which a search in later ones is learned."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import TaskQueries
from headwater.datasets.arrays import array_of, read_archive, read_table


@dataclasses.dataclass(frozen=True, eq=False)
class EarlierTasks:
    """Evaluations of several tasks that share a search space and a unit of values.

    **Arguments:** `space`: that they share; its candidates are not looked at; `queries`: a table
    for each task. `of` makes both from rows in the user's units.
    """

    space: SearchSpace
    queries: TaskQueries

    @classmethod
    def of(cls, space: SearchSpace, tables: Sequence[tuple[Any, Any]]) -> "EarlierTasks":
        """From points `[row, component]` in the units of `space` and values `[row]` of each task.

        More is better. Raises `DataError`, naming the task and the row, for what is no evaluation.
        """
        if not len(tables):
            raise DataError("there is no earlier task: give a table of points and values of each")
        found = [_table(space, table, number) for number, table in enumerate(tables)]
        rows = max(len(value) for _, value in found)
        point = np.zeros((len(found), rows, space.size), np.float32)
        value = np.zeros((len(found), rows), np.float32)
        known = np.zeros((len(found), rows), bool)
        for task, (points, values) in enumerate(found):
            place = slice(0, len(values))
            point[task, place], value[task, place], known[task, place] = points, values, True
        tasks = TaskQueries(jnp.asarray(point), jnp.asarray(value), jnp.asarray(known))
        return cls(dataclasses.replace(space, candidates=None), tasks)


def _table(space: SearchSpace, table: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    where = f"task {number + 1}"
    try:
        points, values = (np.asarray(part, np.float64) for part in table)
    except (TypeError, ValueError):
        raise DataError(f"{where} is no pair of points and values that are numbers") from None
    if points.ndim != 2 or points.shape[1] != space.size or values.shape != points.shape[:1]:
        raise DataError(
            f"{where} has points of shape {points.shape} and values of shape {values.shape}: a row "
            f"of {space.size} components and a value are needed for each evaluation"
        )
    if not len(values):
        raise DataError(f"{where} has no evaluation: leave it out")
    low, high = np.asarray(space.low), np.asarray(space.high)
    slack = 1e-6 * (high - low)
    inside = (points >= low - slack) & (points <= high + slack)
    for wrong, reason in (
        (~np.isfinite(values), "has a value that is not finite"),
        (~inside.all(axis=1), "lies outside of the space"),
    ):
        if wrong.any():
            raise DataError(f"{where}: row {np.argmax(wrong) + 1} {reason}: leave such rows out")
    return np.clip(space.to_unit(np.clip(points, low, high)), 0.0, 1.0), values


def read_earlier_tasks(path: str | Path) -> EarlierTasks:
    """Evaluations of earlier tasks in a file.

    A table (`.csv`, `.parquet`) has the columns `task` (a name or a number), `point_0`, `point_1`,
    … and `value`; its space goes from the least to the most of each component. An archive (`.npz`)
    has the arrays `task`, `point` `[row, component]` and `value`, and perhaps `low`, `high`,
    `logarithmic` and `whole`, of each component.

    Raises `DataError`, naming the file, for anything else.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".csv", ".parquet"):
            arrays = read_table(path)
            size = sum(name.startswith("point_") for name in arrays)
            names = [f"point_{i}" for i in range(max(size, 1))]
            arrays["point"] = np.stack([array_of(arrays, name, "biuf") for name in names], axis=1)
        else:
            arrays = read_archive(path)
        task = array_of(arrays, "task", "biufUSO")
        point, value = (array_of(arrays, name, "biuf") for name in ("point", "value"))
        if point.ndim != 2 or not len(point) or not task.shape == value.shape == point.shape[:1]:
            raise DataError(
                f"tasks have shape {task.shape}, points {point.shape} and values {value.shape}: "
                "one of each is needed for every evaluation"
            )
        if not np.isfinite(point.astype(np.float64)).all():
            raise DataError("a point is not finite: leave such rows out")
        space = _space(arrays, point.astype(np.float64))
        each = [task == name for name in dict.fromkeys(task.tolist())]
        return EarlierTasks.of(space, [(point[rows], value[rows]) for rows in each])
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def _space(arrays: dict[str, Any], point: np.ndarray) -> SearchSpace:
    box = SearchSpace.of_candidates(point)
    low, high = (
        tuple(array_of(arrays, name, "biuf").astype(float).tolist()) if name in arrays else usual
        for name, usual in (("low", box.low), ("high", box.high))
    )
    flags: dict[str, Any] = {
        name: tuple(array_of(arrays, name, "b").tolist())
        for name in ("logarithmic", "whole")
        if name in arrays
    }
    return SearchSpace(low, high, **flags)


def write_earlier_tasks(path: str | Path, tasks: EarlierTasks) -> None:
    """Writes what `read_earlier_tasks` reads from an archive."""
    space, queries = tasks.space, tasks.queries
    known = np.asarray(queries.known)
    with Path(path).open("wb") as file:
        np.savez(
            file,
            task=np.nonzero(known)[0],
            point=space.from_unit(np.asarray(queries.point, np.float64)[known]),
            value=np.asarray(queries.value)[known],
            low=np.asarray(space.low),
            high=np.asarray(space.high),
            logarithmic=np.asarray(space.logarithmic or (False,) * space.size),
            whole=np.asarray(space.whole or (False,) * space.size),
        )
