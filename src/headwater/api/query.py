"""Look through the numbers of many runs: as tables, and with SQL."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.api.specifications.specification import Specification, updates_of
from headwater.core.errors import RunError, SpecificationError
from headwater.evaluation.statistics import interval, seed_means
from headwater.runs import checkpoint
from headwater.runs.directory import RunDirectory
from headwater.runs.evaluations import final_returns

VIEWS = ("runs", "evaluations", "metrics")
"""What can be asked about: one row for each run, for each episode of an evaluation, and for each
logged number."""


def query(paths: str | Path | Sequence[str | Path], sql: str | None = None) -> pa.Table:
    """What `sql` asks of the runs at `paths`, or a table of these runs.

    `runs` has one row for each run: `run`, `path`, `method`, `dataset`, `task` (environment, finite
    process or model), `seeds`, `updates` (done so far), `finished`, `score`, `low`, `high`
    (interquartile mean over seeds of the last evaluation with its 95 % interval) and `settings`,
    whose parts are the hyper-parameters (`settings.discount`). `evaluations`: `run`, `stage`,
    `update`, `environment_steps`, `seed`, `episode`, `value` (the return). `metrics`: `run`,
    `stage`, `update`, `environment_steps`, `seed`, `name`, `value`.

    **Arguments:** `paths`: directories of runs, of sweeps, or that hold some somewhere below;
    `sql`: in DuckDB's dialect (extra `duckdb`). It sees these three tables, and no file.

    **Returns:** an Arrow table (`.to_pylist()`, `.to_pandas()`). Raises `RunError` if there is no
    run, `SpecificationError` for a question that DuckDB does not understand.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found = _runs_below([Path(path) for path in given])
    names = _distinct_names(found)
    if sql is None:
        return _runs(names)
    try:
        import duckdb
    except ModuleNotFoundError:
        raise SpecificationError(
            "questions in SQL need DuckDB: pip install 'headwater[duckdb]'"
        ) from None
    # Nothing but the tables: no file is read or written, and no variable of this program.
    locked = {"enable_external_access": "false", "python_enable_replacements": "false"}
    with duckdb.connect(config={**locked, "lock_configuration": "true"}) as connection:
        makers = {"runs": _runs, "evaluations": _evaluations, "metrics": _metrics}
        for view in VIEWS:
            # The larger ones take a while to read, so only if they are mentioned.
            if view in sql.lower():
                connection.register(view, makers[view](names))
        try:
            relation = connection.sql(sql)
            if relation is None:
                raise SpecificationError("this question asks for nothing: begin it with SELECT")
            return relation.to_arrow_table()
        except duckdb.Error as error:
            reason = " ".join(str(error).split())
            raise SpecificationError(f"DuckDB says of this question: {reason}") from None


def _runs_below(paths: list[Path]) -> list[Path]:
    """Directories of runs at or below `paths`, but not of runs within runs."""
    found: dict[Path, Path] = {}
    for path in paths:
        before = len(found)
        if not path.is_dir():
            raise RunError(f"there is no directory {path}")
        for place, below, files in os.walk(path):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if "run.json" in files:
                below.clear()
                if RunDirectory(Path(place)).specification.get("verb") not in ("train", "adapt"):
                    continue
                found.setdefault(Path(place).resolve(), Path(place))
        if len(found) == before and not any(p.is_relative_to(path.resolve()) for p in found):
            raise RunError(f"{path} holds no run")
    return list(found.values())


def _distinct_names(paths: list[Path]) -> dict[str, Path]:
    """Every run by the name of its directory, or by its path where two have the same."""
    names = [path.resolve().name for path in paths]
    return {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths)}


def _runs(names: dict[str, Path]) -> pa.Table:
    rows = []
    for name, path in names.items():
        directory = RunDirectory(path)
        specification = Specification.from_json(directory.specification, str(path))
        found = checkpoint.find(directory.checkpoints)
        # The last stage is the one that counts.
        last = len(specification.updates_before)
        done = max((p.update for p in found if p.stage == last), default=0)
        rows.append(
            {
                "run": name,
                "path": str(path),
                "method": specification.method.name,
                "dataset": None if specification.data is None else _stem(specification.data.path),
                "task": _task(specification),
                "recipe": specification.recipe,
                "seeds": len(specification.seeds),
                "updates": done,
                "finished": done >= updates_of(specification),
                **_score(directory, specification.seeds, specification.options.keeps_best),
                "settings": specification.method.settings,
            }
        )
    settings = _columns([row.pop("settings") for row in rows])
    table = pa.Table.from_pylist(rows, schema=_RUNS)
    parts = pa.array([{} for _ in rows], pa.struct([]))
    if settings:
        parts = pa.StructArray.from_arrays(list(settings.values()), names=list(settings))
    return table.append_column("settings", parts)


def _task(specification: Specification) -> str | None:
    """The environment, the finite process, or the language model that it began with."""
    if specification.task is not None:
        return specification.task.name
    if specification.process is not None:
        return specification.process.name
    return None if specification.model is None else _stem(specification.model.path)


def _score(directory: RunDirectory, seeds: list[int], best: bool) -> dict[str, Any]:
    """The last evaluation that all seeds have, or the best of each where it is kept, in figures."""
    rows = directory.rows("evaluations")
    found = final_returns(rows, seeds, directory.path, best=best)
    if not found:
        return {"score": None, "low": None, "high": None}
    score = interval(seed_means(np.asarray(found)))
    return {"score": score.point, "low": score.low, "high": score.high}


def _columns(settings: list[dict[str, Any]]) -> dict[str, pa.Array]:
    """Every hyper-parameter of any run, as numbers where all of them are; else as texts."""
    found = {}
    for name in sorted({name for each in settings for name in each}):
        values = [each.get(name) for each in settings]
        try:
            found[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            found[name] = pa.array([None if value is None else str(value) for value in values])
    return found


def _evaluations(names: dict[str, Path]) -> pa.Table:
    rows = (
        (name, *_place(row), row["seed"], episode, value)
        for name, path in names.items()
        for row in RunDirectory(path).rows("evaluations")
        for episode, value in enumerate(row["returns"])
    )
    return _table(rows, _EVALUATIONS)


def _metrics(names: dict[str, Path]) -> pa.Table:
    def rows():
        for name, path in names.items():
            directory = RunDirectory(path)
            seeds = Specification.from_json(directory.specification, str(path)).seeds
            for row in directory.rows("metrics"):
                for metric, values in row["metrics"].items():
                    for seed, value in zip(seeds, values):
                        yield (name, *_place(row), seed, metric, value)

    return _table(rows(), _METRICS)


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["stage"], row["update"], row["environment_steps"]


def _table(rows, schema: pa.Schema) -> pa.Table:
    columns: list[list[Any]] = [[] for _ in schema]
    for row in rows:
        for column, value in zip(columns, row):
            column.append(value)
    return pa.table(columns, schema=schema)


def _stem(path: str | None) -> str | None:
    return None if path is None else Path(path).stem


_TEXT, _WHOLE, _NUMBER = pa.string(), pa.int64(), pa.float64()
_RUNS = pa.schema(
    {
        **dict.fromkeys(("run", "path", "method", "dataset", "task", "recipe"), _TEXT),
        **dict.fromkeys(("seeds", "updates"), _WHOLE),
        "finished": pa.bool_(),
        **dict.fromkeys(("score", "low", "high"), _NUMBER),
    }
)
_PLACE = {"run": _TEXT, "stage": _TEXT, "update": _WHOLE, "environment_steps": _WHOLE}
_EVALUATIONS = pa.schema({**_PLACE, "seed": _WHOLE, "episode": _WHOLE, "value": _NUMBER})
_METRICS = pa.schema({**_PLACE, "seed": _WHOLE, "name": _TEXT, "value": _NUMBER})
