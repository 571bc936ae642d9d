"""Tables with a row for each episode, whose columns hold lists: imitation's trajectories."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from headwater.core.errors import DataError
from headwater.datasets.columns.roles import Chunk
from headwater.datasets.episodes.ends import RECORDS

_EPISODES = "each row of the table is an episode, whose columns hold a list of its steps"
_FLAGS = ("terminals", "truncations", "dones")


def is_trajectories(batch: Any, roles: dict[str, list[str]]) -> bool:
    """Whether the rows of an Arrow batch are episodes and not steps.

    **Arguments:** `roles`: the columns that play each role.
    """
    if not batch.num_rows:
        return False
    observations = batch.column(roles["observations"][0])
    actions = batch.column(roles["actions"][0])
    if "rewards" in roles:
        rewards = batch.column(roles["rewards"][0])
        if not _is_list(rewards.type):
            return False
        lengths = _lengths(rewards)
        if np.any(lengths != 1):
            return True
    elif not _is_list(actions.type):
        return False
    else:
        lengths = _lengths(actions)
    if _depth(observations.type) < 2:
        return False
    more = _lengths(observations) - lengths
    varies = bool(np.any(lengths != lengths[0]))
    return bool(np.all(more == 1)) or ((varies or "rewards" in roles) and bool(np.all(more == 0)))


def reading_note(batch: Any, roles: dict[str, list[str]]) -> str:
    """What the rows of such a table are, in words."""
    numbers = [name for name in roles.get("episodes", ()) if _is_list(batch.column(name).type)]
    if not numbers:
        return _EPISODES
    return (
        "each row of the table holds lists of steps, and a row goes on with the episode of the row "
        f"before where '{numbers[0]}' is the same and its steps follow"
    )


def unrolled(batches: Iterator[Any], roles: dict[str, list[str]], column) -> Iterator[Chunk]:
    """The steps of all episodes end to end, a chunk for each batch.

    **Arguments:** `column`: reads an Arrow array, given its name and the row it starts at.

    Raises `DataError`, with the row, for lists whose lengths do not fit together.
    """
    start = record = 0
    waiting: tuple[Chunk, np.ndarray] | None = None
    for batch in batches:
        if batch.num_rows:
            chunk, last = _chunk(batch, roles, column, start)
            cuts = last[:-1][~_goes_on(chunk, last[:-1])]
            if _is_counted(chunk):
                # Where rows are told apart by their steps, too, numbers may repeat.
                numbers = chunk["episodes"]
                cuts = np.union1d(cuts, np.flatnonzero(~_alike(numbers[1:], numbers[:-1])))
            if waiting is not None:
                held, before = waiting
                between = {
                    role: np.concatenate([held[role][-1:], chunk[role][:1]]) for role in held
                }
                if not _goes_on(between, np.zeros(1, np.int64))[0]:
                    before = np.append(before, len(held["actions"]) - 1)
                yield _cut(held, before, record)
                record += before.size
            waiting = chunk, cuts
        start += batch.num_rows
    if waiting is not None:
        held, before = waiting
        yield _cut(held, np.append(before, len(held["actions"]) - 1), record)


def _cut(chunk: Chunk, cuts: np.ndarray, record: int) -> Chunk:
    """The chunk with its records, numbered from `record` on, of which each ends after a cut."""
    rows = len(chunk["actions"])
    boundary = np.zeros(rows + 1, bool)
    boundary[cuts + 1] = True
    if "terminals" in chunk:
        ended = chunk["terminals"].reshape(-1) != 0
        cut = chunk.get("truncations", np.zeros(rows, bool)).reshape(-1) != 0
        chunk = {**chunk, "truncations": cut | (boundary[1:] & ~ended)}
    if _is_counted(chunk):
        chunk = {role: values for role, values in chunk.items() if role != "episodes"}
    return {**chunk, RECORDS: record + np.cumsum(boundary[:-1])}


def _is_counted(chunk: Chunk) -> bool:
    """Whether beside the number of an episode something says which step follows which."""
    steps = chunk.get("steps", np.zeros(0, str))
    return "episodes" in chunk and (steps.dtype.kind in "iuf" or "next_observations" in chunk)


def _goes_on(chunk: Chunk, last: np.ndarray) -> np.ndarray:
    """Whether the episode goes on after each of the steps `last`, which end rows of the table.

    It does where its number stays the same, no end is marked, and the steps are counted on or what
    was to follow is observed.
    """
    numbers = chunk.get("episodes")
    if numbers is None:
        return np.zeros(last.size, bool)
    found = _alike(numbers[last], numbers[last + 1])
    for role in (*_FLAGS, "ends"):
        if role in chunk:
            found &= chunk[role].reshape(len(numbers), -1)[last].any(1) == 0
    steps, following = chunk.get("steps"), chunk.get("next_observations")
    if steps is not None and steps.dtype.kind in "iuf":
        steps = steps.reshape(len(numbers), -1)[:, 0]
        return found & (steps[last + 1] > steps[last])
    if following is None:
        return np.zeros(last.size, bool)
    return found & _alike(following[last], chunk["observations"][last + 1])


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether rows are equal, one for one."""
    return np.all(one == other, axis=tuple(range(1, one.ndim)))


def _chunk(batch: Any, roles: dict[str, list[str]], column, start: int) -> tuple[Chunk, np.ndarray]:
    """The steps of the rows of a batch, and the last step of each row."""
    steps = _checked(batch.column(roles["actions"][0]), roles["actions"][0], start)
    empty = np.flatnonzero(steps == 0)
    if empty.size:
        raise DataError(f"the episode in row {start + empty[0]} has no steps: leave it out")
    ends = np.cumsum(steps)
    last = np.zeros(int(ends[-1]), bool)
    last[ends - 1] = True
    found: Chunk = {}
    for role, names in roles.items():
        parts, successors = [], []
        for name in names:
            values = batch.column(name)
            if not _is_list(values.type):
                each = column(values, name, start)
                # One value for each episode: a flag stands for its last step.
                parts.append(np.repeat(each, steps))
                if role in _FLAGS:
                    parts[-1] = parts[-1] * last
                continue
            lengths = _checked(values, name, start)
            longer = lengths - steps
            wrong = np.flatnonzero(longer != 0)
            if role == "observations" and np.all(longer == 1):
                rows = column(values.flatten(), name, 0)
                final = np.zeros(len(rows), bool)
                final[np.cumsum(lengths) - 1] = True
                first = np.roll(final, 1)
                parts.append(rows[~final])
                successors.append(rows[~first])
                continue
            if wrong.size:
                row = int(wrong[0])
                raise DataError(
                    f"column '{name}' has {lengths[row]:,} steps in row {start + row} but "
                    f"'{roles['actions'][0]}' has {steps[row]:,}: all lists of a row need the same "
                    "length (those of observations may all have one more)"
                )
            parts.append(column(values.flatten(), name, 0))
        found[role] = parts[0] if len(parts) == 1 else np.column_stack(parts)
        if successors and len(successors) == len(names):
            together = successors[0] if len(successors) == 1 else np.column_stack(successors)
            found.setdefault("next_observations", together)
    return found, ends - 1


def _checked(values: Any, name: str, start: int) -> np.ndarray:
    if not _is_list(values.type):
        raise DataError(f"column '{name}' holds no lists, though other columns do")
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"column '{name}' has no value at row {start + row}: remove or fill it")
    return _lengths(values)


def _lengths(values: Any) -> np.ndarray:
    lengths = values.value_lengths().to_numpy(zero_copy_only=False)
    return np.nan_to_num(lengths).astype(np.int64)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _depth(kind: Any) -> int:
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth
