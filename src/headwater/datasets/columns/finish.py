"""The dataset that rows of a file amount to, and where its episodes end."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from headwater.core.errors import DataError
from headwater.datasets.columns.options import Options
from headwater.datasets.columns.roles import Chunk, Reading
from headwater.datasets.dataset import Dataset
from headwater.datasets.episodes.ends import SIGNALS, Ends, Signal, combine, without_last_rows
from headwater.datasets.episodes.successors import check_successors, missing_steps, unused_rows
from headwater.datasets.metadata import add_counts, remark
from headwater.datasets.reading import ROLE_OF_LOOKS


def finish(
    chunk: Chunk, options: Options, *, ends: Ends | None = None, whole: bool = True
) -> Dataset:
    """The dataset that a file's rows amount to.

    **Arguments:** `ends`: of its episodes, if they are known; `whole`: whether these are all rows
    of the file. Raises `DataError` if they do not hold together or leave open where the process
    ended.
    """
    rows = count_rows(chunk)
    if ends is None:
        ends = endings(chunk, rows, options)
    if whole:
        _refuse_single(ends, rows, options)
    if options.last_row == "observation":
        chunk, ends = without_last_rows(chunk, ends)
        rows = count_rows(chunk)
    metadata = dict(options.metadata or {})
    remarks = metadata.pop("reading", None)
    metadata["reading"] = _reading_notes(options, ends.ignored, remarks)
    add_counts(metadata, {"unmarked_ends": int(np.count_nonzero(ends.unmarked))})
    for note in _oddities(chunk, ends, options):
        remark(metadata, note)
    rewards = chunk.get("rewards")
    if rewards is None:
        metadata["missing"] = ["rewards"]
        rewards = np.zeros(rows, np.float32)
    return Dataset.from_arrays(
        chunk["observations"],
        chunk["actions"],
        rewards,
        ends.terminals,
        ends.truncations,
        chunk.get("next_observations"),
        action_low=options.action_low,
        action_high=options.action_high,
        discrete=options.discrete,
        action_count=options.action_count,
        action_labels=options.action_labels,
        action_bounds=options.action_bounds,
        horizon=options.horizon,
        metadata=metadata,
        propensities=chunk.get("propensities"),
        log_propensities=chunk.get("log_propensities"),
        action_confidence=chunk.get("action_confidence"),
        missing_actions=options.missing_actions,
    )


def _oddities(chunk: Chunk, ends: Ends, options: Options) -> Iterator[str]:
    """What is odd about these rows, as sentences."""
    rows = count_rows(chunk)
    arrays = (chunk["observations"], chunk.get("rewards", np.zeros(rows)))
    observations, rewards = map(np.asarray, arrays)
    if any(np.shape(values)[:1] != (rows,) for values in (rewards, chunk["actions"])):
        return  # Said elsewhere.
    following = chunk.get("next_observations")
    if following is not None:
        yield from check_successors(
            observations, np.asarray(following), rewards, ends.terminals, ends.truncations
        )
    final = ends.terminals if ends.truncations is None else ends.terminals | ends.truncations
    steps = chunk.get("steps")
    names = [] if options.reading is None else options.reading.columns.get("steps", [])
    if steps is not None and len(names) == 1 and names[0] not in ends.ignored:
        note = missing_steps(np.asarray(steps), names[0], final, following is not None)
        if note is not None:
            yield note
    note = unused_rows(observations, np.asarray(chunk["actions"]), rewards, final)
    if note is not None:
        yield note


def endings(
    chunk: Chunk,
    rows: int,
    options: Options,
    *,
    complete: bool = True,
    before: dict[str, str] | None = None,
) -> Ends:
    """Where the episodes of these rows end.

    **Arguments:** `complete`: whether the last one is known to be whole; `before`: what was
    `ignored` in the file's first rows, if these are others.
    """
    looks = {} if options.reading is None else options.reading.looks
    return combine(
        list(_signals(chunk, options)),
        rows,
        options.end_options,
        complete=complete,
        before=before,
        candidates={name: ROLE_OF_LOOKS[what] for name, what in looks.items()},
    )


def _signals(chunk: Chunk, options: Options) -> Iterator[Signal]:
    reading = options.reading
    for role in SIGNALS:
        if role not in chunk:
            continue
        names = [role] if reading is None else reading.columns.get(role, [role])
        declared = reading is not None and role in reading.declared
        values = chunk[role]
        if len(names) == 1 or values.ndim != 2 or values.shape[1] != len(names):
            yield Signal(role, names[0], values.reshape(-1), declared)
        else:
            for name, column in zip(names, values.T, strict=True):
                yield Signal(role, name, column, declared)


def _refuse_single(ends: Ends, rows: int, options: Options) -> None:
    """Raises `DataError` if all rows are one episode, but a column looks as if they were not."""
    boundary = ends.terminals
    if ends.truncations is not None:
        boundary = boundary | ends.truncations
    reading = options.reading
    if reading is None or rows < 2 or options.horizon is not None or boundary[:-1].any():
        return
    for name, what in reading.looks.items():
        role = ROLE_OF_LOOKS[what]
        # Many a record of one process has a time.
        if role not in ("next_observations", "propensities", "continues", "steps"):
            raise DataError(
                f"all {rows:,} rows would be one episode, but the column '{name}' looks like "
                f"{what}: say columns={{'{role}': '{name}'}} (`--column {role}={name}`), or, if it "
                f"is not, columns={{'unused': '{name}'}} (`--column unused={name}`)"
            )


def _reading_notes(options: Options, ignored: dict[str, str], remarks: Any) -> dict[str, Any]:
    """What was read as what, and what was not used after all.

    **Arguments:** `remarks`: sentences in which a format says how it read the file, if any.
    """
    found = options.reading or Reading({}, (), (), {})
    columns = {
        role: kept
        for role, names in found.columns.items()
        if (kept := [name for name in names if name not in ignored])
    }
    unused = [*found.unused, *(name for name in ignored if name not in found.unused)]
    notes = [str(remark) for remark in remarks] if isinstance(remarks, list) else []
    names = {name.lower() for name in (*columns.get("starts", ()), *columns.get("ends", ()))}
    if options.last_row is None and {"is_first", "is_last"} <= names:
        notes.append(
            "the last row of each episode is taken as a step; where it is the last observation "
            "alone, as RLDS writes it, say last_row='observation' (`--last-row observation`)"
        )
    return {
        "columns": columns,
        "unused": unused,
        "looks": found.looks,
        "ignored": ignored,
        "episodes_end": options.episodes_end,
        "notes": notes,
    }


def count_rows(chunk: Chunk) -> int:
    """How many rows these are."""
    return np.shape(chunk["observations"])[0] if np.ndim(chunk["observations"]) else 0
