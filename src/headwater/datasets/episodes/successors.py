"""Whether stored successors, and what ends an episode, fit the rows that come after them."""

import numpy as np

from headwater.core.errors import DataError

_FEWEST = 2
"""Ends of episodes that show how ends are recorded; one may be an accident."""
_MOST = 0.9
"""Share of rows within episodes whose successor is the next row, where a record is in order."""


def check_successors(
    observations: np.ndarray,
    next_observations: np.ndarray,
    rewards: np.ndarray,
    terminals: np.ndarray,
    truncations: np.ndarray | None,
) -> list[str]:
    """What is odd about how rows follow each other, each in a sentence.

    **Arguments:** `observations`, `next_observations`: `[row, …]`; `rewards`, `terminals`,
    `truncations`: `[row]`.

    Raises `DataError` if ends of episodes stand a row late: then each row before one has a
    successor that the next row is not, and each marked row goes on with the next row.
    """
    rows = len(terminals)
    if rows < 3 or next_observations.shape != observations.shape:
        return []
    same = next_observations[:-1].reshape(rows - 1, -1) == observations[1:].reshape(rows - 1, -1)
    follows = same.all(1)
    final = terminals if truncations is None else terminals | truncations
    ends = np.flatnonzero(final[:-1])
    within = ~final[:-1]
    _refuse_late(follows, ends, within)
    notes = []
    breaks = np.flatnonzero(within & ~follows)
    if breaks.size:
        share = breaks.size / np.count_nonzero(within)
        notes.append(
            f"{breaks.size:,} rows within episodes ({share:.0%}, the first is row {breaks[0]:,}) "
            "have a successor that is not the next row's observation: rows are missing or not in "
            "order, or an episode ends there unmarked; what learns from single transitions may use "
            "them, what learns from sequences must not"
        )
    if ends.size < _FEWEST or not follows[ends].all() or not _mostly(follows[within]):
        return notes
    if np.all(rewards[ends + 1] == 0) and np.mean(rewards != 0) > 0.5:
        notes.append(
            f"after each of {ends.size:,} ends the next row begins with the last observation of "
            "the episode before and has no reward, as where a vector environment of Gymnasium "
            "records its reset as a step (AutoresetMode.NEXT_STEP): these rows are no steps; leave "
            "them out"
        )
    elif not terminals[ends].any():
        notes.append(
            f"the successor of each of {ends.size:,} truncated rows is the observation of the next "
            "row, which belongs to the next episode: if the process does not go on there, but is "
            "begun anew, it is the wrong one; leave it out with columns={'unused': [the columns of "
            "successors]}"
        )
    return notes


def _refuse_late(follows: np.ndarray, ends: np.ndarray, within: np.ndarray) -> None:
    later = ends[ends > 0]
    if later.size < _FEWEST or not follows[later].all() or follows[later - 1].any():
        return
    other = within.copy()
    other[later - 1] = False
    if not _mostly(follows[other]):
        return
    raise DataError(
        f"the ends of episodes stand a row late: row {later[0]:,} is marked as one (and "
        f"{later.size - 1:,} more are alike), but its successor is the observation of the next "
        "row, while that of the row before it is not: the flag stands in the first row of the "
        "next episode; move the column up by a row"
    )


def _mostly(follows: np.ndarray) -> bool:
    return follows.size > 0 and bool(np.mean(follows) >= _MOST)


def missing_steps(steps: np.ndarray, name: str, final: np.ndarray, stored: bool) -> str | None:
    """A sentence if a counter that else goes up evenly leaves steps out within episodes.

    **Arguments:** `steps`: `[row]`, the counter, called `name`; `final`: `[row]`, where an end is
    marked; `stored`: whether successors are stored with the rows.
    """
    counts = steps.reshape(-1)
    if counts.dtype.kind not in "iuf" or counts.size != final.size:
        return None
    after = np.flatnonzero(~final[:-1])
    increments = np.diff(counts.astype(np.float64))[after]
    kept = increments > 0
    after, increments = after[kept], increments[kept]
    if not after.size:
        return None
    usual = float(np.median(increments))
    missing = increments > 1.5 * usual
    even = np.abs(increments - usual) < 0.01 * usual
    count = int(np.count_nonzero(missing))
    if not count or np.mean(even) < _MOST:
        return None
    row = int(after[np.argmax(missing)])
    consequence = (
        "what learns from sequences must not use them"
        if stored
        else "the next row is taken for the successor of a row that it did not follow; number the "
        "pieces as episodes of their own"
    )
    return (
        f"'{name}' leaves out steps after {count:,} {'rows' if count > 1 else 'row'} within "
        f"episodes (the first is row {row:,}, from {counts[row]:g} to {counts[row + 1]:g}): rows "
        f"are missing there, and {consequence}"
    )


def unused_rows(
    observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray, final: np.ndarray
) -> str | None:
    """A sentence if the last rows hold nothing but zeros, as the unused part of a buffer does.

    **Arguments:** arrays of a row each; `final`: `[row]`, where an end is marked.
    """
    rows = len(rewards)
    if rows < _FEWEST:
        return None
    zero = ~final & (rewards.reshape(rows, -1) == 0).all(1)
    for values in (observations, actions):
        if values.dtype.kind not in "biuf":
            return None
        zero &= (values.reshape(rows, -1) == 0).all(1)
    count = rows if zero.all() else int(np.argmin(zero[::-1]))
    if count < _FEWEST or count == rows:
        return None
    return (
        f"the last {count:,} of {rows:,} rows hold nothing but zeros, as the unused part of a "
        f"replay buffer does: if they are no data, leave them out (keep the first {rows - count:,})"
    )
