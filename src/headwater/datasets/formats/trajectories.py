"""Tables with a row for each episode, whose columns hold lists: imitation's trajectories."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from headwater.core.errors import DataError
from headwater.datasets.columns.roles import Chunk
from headwater.datasets.episodes.ends import RECORDS

READING = "each row of the table is an episode, whose columns hold a list of its steps"
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


def unrolled(batches: Iterator[Any], roles: dict[str, list[str]], column) -> Iterator[Chunk]:
    """The steps of all episodes end to end, a chunk for each batch.

    **Arguments:** `column`: reads an Arrow array, given its name and the row it starts at.

    Raises `DataError`, with the row, for lists whose lengths do not fit together.
    """
    start = 0
    for batch in batches:
        if batch.num_rows:
            yield _chunk(batch, roles, column, start)
        start += batch.num_rows


def _chunk(batch: Any, roles: dict[str, list[str]], column, start: int) -> Chunk:
    steps = _checked(batch.column(roles["actions"][0]), roles["actions"][0], start)
    empty = np.flatnonzero(steps == 0)
    if empty.size:
        raise DataError(f"the episode in row {start + empty[0]} has no steps: leave it out")
    ends = np.cumsum(steps)
    last = np.zeros(int(ends[-1]), bool)
    last[ends - 1] = True
    found: Chunk = {RECORDS: np.repeat(start + np.arange(batch.num_rows), steps)}
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
    if "terminals" in found:
        ended = found["terminals"].reshape(-1) != 0
        cut = found.get("truncations", np.zeros(last.size, bool)).reshape(-1) != 0
        found["truncations"] = cut | (last & ~ended)
    return found


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
