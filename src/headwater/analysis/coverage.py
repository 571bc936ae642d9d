"""Counting distinct state–action pairs, exactly or in constant memory."""

import numpy as np

from headwater.datasets.dataset import Dataset

BINS = 100
"""Bins per dimension, as in Schweighofer et al. 2022 (arXiv 2111.04714)."""

_PRECISION = 14  # 2¹⁴ registers: a standard error of 1.04/√2¹⁴ = 0.008.
_BLOCK = 1 << 18


def saco(dataset: Dataset, reference: Dataset, *, approximate: bool | None = None) -> float:
    """Distinct state–action pairs of `dataset` over those of a `reference` replay.

    Every dimension is cut into 100 bins over the range of the reference; discrete actions count as
    they are. The definition is for equal numbers of transitions: a longer dataset has more pairs.

    **Arguments:** `reference`: the replay of a policy trained online on the same task;
    `approximate`: count by HyperLogLog (default: only beyond five million rows).
    """
    limits = ranges(reference)
    own = unique_pairs(dataset, limits, approximate=approximate)
    return own / unique_pairs(reference, limits, approximate=approximate)


def unique_pairs(
    dataset: Dataset,
    limits: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    approximate: bool | None = None,
) -> float:
    """Number of distinct binned state–action pairs.

    **Arguments:** `limits`: smallest and largest value of every dimension of the observation and,
    if it is continuous, the action (default: the dataset's own); `approximate`: see `saco`.
    """
    low, high = ranges(dataset) if limits is None else limits
    if approximate is None:
        approximate = dataset.size > 5_000_000
    blocks = (
        row_hashes(_binned(dataset, slice(begin, begin + _BLOCK), low, high))
        for begin in range(0, dataset.size, _BLOCK)
    )
    if approximate:
        return approximate_count(blocks)
    # 64 bits: among five million rows two would collide once in a million datasets.
    return float(_distinct(np.concatenate(list(blocks))))


def ranges(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each dimension of observations and continuous actions."""
    low, high = [dataset.observations.min(0)], [dataset.observations.max(0)]
    if not dataset.spaces.discrete:
        low.append(dataset.actions.min(0))
        high.append(dataset.actions.max(0))
    return np.concatenate(low), np.concatenate(high)


def duplicate_rows(dataset: Dataset) -> int:
    """Number of rows that repeat an earlier one exactly in everything but their place."""
    hashes = []
    for begin in range(0, dataset.size, _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        parts = [
            _bits(dataset.observations[rows]),
            _bits(dataset.actions[rows]),
            _bits(dataset.rewards[rows]),
            _bits(dataset.next_observations[rows]),
            dataset.terminals[rows, None].astype(np.uint64),
        ]
        hashes.append(row_hashes(np.concatenate(parts, axis=1)))
    return dataset.size - _distinct(np.concatenate(hashes))


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit hash of each row of whole numbers, uint64 `[row]`."""
    state = np.full(rows.shape[0], 0x9E3779B97F4A7C15, np.uint64)
    for column in rows.T:
        # The finaliser of SplitMix64, one round per column.
        state ^= column.astype(np.uint64)
        state += np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def approximate_count(blocks) -> float:
    """Number of distinct 64-bit hashes in an iterable of arrays, by HyperLogLog.

    Memory is 16 kB whatever the number; the standard error is 0.8 %. The estimator is the one of
    Ertl 2017 (arXiv 1702.01284), which needs no correction for small or large counts.
    """
    registers, rest_bits = 1 << _PRECISION, 64 - _PRECISION
    largest = np.zeros(registers, np.int64)
    for hashes in blocks:
        place = (hashes >> np.uint64(rest_bits)).astype(np.int64)
        rest = hashes & np.uint64((1 << rest_bits) - 1)
        # Below 2⁵³ a float is exact, and its exponent is the number of binary digits.
        rank = rest_bits + 1 - np.frexp(rest.astype(np.float64))[1]
        np.maximum.at(largest, place, rank)
    counts = np.bincount(largest, minlength=rest_bits + 2) / registers
    total = _tau(1.0 - counts[rest_bits + 1])
    for rank in range(rest_bits, 0, -1):
        total = 0.5 * (total + counts[rank])
    total += _sigma(counts[0])
    return float(registers / (2.0 * np.log(2.0) * total))


def _binned(dataset: Dataset, rows: slice, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    values = dataset.observations[rows]
    if not dataset.spaces.discrete:
        values = np.concatenate([values, dataset.actions[rows]], axis=1)
    low, high = low.astype(np.float64), high.astype(np.float64)
    width = np.where(high > low, high - low, 1.0)
    # Multiplied first: whole numbers then fall exactly onto the edges of their bins.
    bins = np.floor((values - low) * BINS / width).clip(0, BINS - 1).astype(np.int64)
    if dataset.spaces.discrete:
        bins = np.concatenate([bins, dataset.actions[rows, None].astype(np.int64)], axis=1)
    return bins


def _distinct(hashes: np.ndarray) -> int:
    # Sorting whole numbers is many times faster than NumPy's hash table of them.
    ordered = np.sort(hashes)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1


def _bits(values: np.ndarray) -> np.ndarray:
    values = values if values.ndim == 2 else values[:, None]
    return np.ascontiguousarray(values).view(np.uint32)


def _sigma(x: float) -> float:
    if x == 1.0:
        return np.inf
    scale, total, previous = 1.0, x, -1.0
    while total != previous:
        x, previous = x * x, total
        total += x * scale
        scale *= 2.0
    return total


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    scale, total, previous = 1.0, 1.0 - x, -1.0
    while total != previous:
        x, previous = np.sqrt(x), total
        scale *= 0.5
        total -= (1.0 - x) ** 2 * scale
    return total / 3.0
