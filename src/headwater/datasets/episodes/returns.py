"""Sums of rewards within episodes, and where a time limit cut them."""

import itertools

import numpy as np

from headwater.core.errors import DataError

_PIECE = 512
"""Rows of an episode whose returns are summed one after the other."""


def starts_of(last: np.ndarray) -> np.ndarray:
    """First row of each episode, then the number of rows, from which rows are last ones."""
    return np.concatenate([[0], np.flatnonzero(last) + 1]).astype(np.int64)


def returns_to_go(rewards: np.ndarray, starts: np.ndarray, discount: float) -> np.ndarray:
    """Discounted sum of rewards from each row to the end of its episode, float64 `[row]`.

    **Arguments:** `rewards`: `[row]`; `starts`: `[episode + 1]`, first row of each episode and,
    last, the number of rows; `discount`.
    """
    rewards = rewards.astype(np.float64)
    # Episodes are cut into pieces, all of which are summed at once, and then joined again.
    pieces = np.concatenate([np.arange(a, b, _PIECE) for a, b in itertools.pairwise(starts)])
    pieces = np.append(pieces, starts[-1])
    totals = _returns_within(rewards, pieces, discount)
    powers = discount ** np.arange(_PIECE, 0, -1)
    inside = np.flatnonzero(~np.isin(pieces[1:-1], starts))
    for begin, end in zip(pieces[inside][::-1], pieces[inside + 1][::-1], strict=True):
        totals[begin:end] += powers[begin - end :] * totals[end]
    return totals


def _returns_within(rewards: np.ndarray, starts: np.ndarray, discount: float) -> np.ndarray:
    """The same for short episodes: all of them at once, from each one's last step to its first."""
    lengths = np.diff(starts)
    totals = np.empty_like(rewards)
    order = np.argsort(-lengths, kind="stable")
    last, sorted_lengths = starts[1:][order] - 1, -lengths[order]
    following = np.zeros(lengths.size)
    for back in range(int(lengths.max())):
        alive = int(np.searchsorted(sorted_lengths, -back, side="left"))
        rows = last[:alive] - back
        following = rewards[rows] + discount * following[:alive]
        totals[rows] = following
    return totals


def truncate_at(terminals: np.ndarray, horizon: int) -> np.ndarray:
    """Flags `[row]` of the rows at which a time limit of `horizon` steps cut an episode."""
    if horizon < 1:
        raise DataError(f"horizon is {horizon}: a time limit is at least one step")
    starts = np.concatenate([[0], np.flatnonzero(terminals) + 1])
    starts = starts[starts < terminals.size]
    lengths = np.diff(np.append(starts, terminals.size))
    step = np.arange(1, terminals.size + 1) - np.repeat(starts, lengths)
    return (step % horizon == 0) & ~terminals
