"""Actions as a dataset holds them: canonical vectors, or numbers of labelled choices."""

from typing import Any, NamedTuple

import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.spaces import Box, Discrete
from headwater.datasets.metadata import remark
from headwater.datasets.values import (
    as_float,
    blocks,
    check_finite,
    check_length,
    numbers,
    one_per_row,
)

_MOST_ACTIONS = 1_000_000
_FEW_ACTIONS = 64
"""Up to so many numbers, actions that never occur are taken to exist."""
_ROUNDING = 1e-4
"""Actions may lie outside their bounds by this fraction of the range: 32-bit rounding."""


class ActionOptions(NamedTuple):
    """What the user says of actions; see `Dataset.from_arrays`."""

    low: Any
    high: Any
    discrete: bool | None
    size: int | None
    labels: Any
    bounds: str | None

    @property
    def kind(self) -> bool | None:
        """Whether they are discrete, as far as the user says so."""
        if self.size is not None or self.labels is not None:
            return True
        bounded = self.low is not None or self.high is not None or self.bounds is not None
        return False if bounded else self.discrete

    @property
    def usual(self) -> Any:
        """Some action that there surely is."""
        if self.kind:
            return 0 if self.labels is None else self.labels[0]
        return -1.0 if self.low is None else self.low


def canonical_actions(
    values, rows: int, options: ActionOptions, metadata: dict[str, Any]
) -> tuple[np.ndarray, Box | Discrete]:
    """Actions in [-1, 1] or numbered from 0, `[row …]`, and their space in the user's units.

    **Arguments:** `rows`: how many there must be; `metadata`: where it is noted how they were read.
    Raises `DataError`, with the row, for what is no action, or `SpecificationError` for a choice
    that there is not.
    """
    array = numbers(values, "actions")
    low, high, discrete, count = options.low, options.high, options.discrete, options.size
    if options.bounds not in (None, "data"):
        raise SpecificationError(f"action_bounds is '{options.bounds}': the only choice is 'data'")
    bounded = low is not None or high is not None or options.bounds is not None
    finite = count is not None or options.labels is not None
    hot = None if discrete is False or (bounded and not finite) else _hot(array, discrete or finite)
    if hot is not None:
        check_length(array, "actions", rows)
        size = array.shape[1]
        if count not in (None, size):
            raise DataError(f"actions are one-hot rows of {size}, but action_count is {count}")
        remark(
            metadata,
            f"each row of actions is a single 1 among zeros: read as one of {size} discrete "
            "actions (discrete=False for a continuous vector)",
        )
        array, count, discrete = hot, size if options.labels is None else None, True
        if options.labels is not None:
            array = _labels(options.labels, size)[hot]
    if discrete is None:
        one_each = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
        discrete = finite or (array.dtype.kind in "biu" and one_each and not bounded)
    if discrete:
        if bounded:
            raise DataError("discrete actions have no bounds: leave out action_low and action_high")
        one_each = one_per_row(array, "actions", rows)
        return _discrete_actions(one_each, count, options.labels, metadata)
    if options.labels is not None:
        raise DataError("action_labels is for discrete actions, but these are declared continuous")
    if count is not None:
        raise DataError("action_count is for discrete actions, but these are declared continuous")
    if array.ndim == 0:
        raise DataError("actions is a single number: give one row per step")
    check_length(array, "actions", rows)
    array = as_float(array.reshape(rows, int(np.prod(array.shape[1:], dtype=int))))
    if array.shape[1] == 0:
        raise DataError("actions has rows without components: at least one number is needed")
    check_finite(array, "actions")
    if options.bounds is not None:
        low, high = _data_bounds(array, low, high)
        remark(metadata, "the bounds of the actions are the smallest and the largest in the data")
    space = Box(
        low=_bound(-1.0 if low is None else low, array.shape[1], "action_low"),
        high=_bound(1.0 if high is None else high, array.shape[1], "action_high"),
    )
    lower, upper = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
    if np.any(lower >= upper):
        component = int(np.argmax(lower >= upper))
        raise DataError(
            f"action_low is {lower[component]:g} and action_high {upper[component]:g} for "
            f"component {component}: the lower bound must be below the upper"
        )
    slack = _ROUNDING * (upper - lower)
    whole = not bounded and _few_whole(array)
    outside = (array < lower - slack) | (array > upper + slack)
    if outside.any():
        row, component = (int(index) for index in np.argwhere(outside)[0])
        affected = int(np.count_nonzero(outside.any(1)))
        remedy = (
            "correct the bounds or clip these actions"
            if bounded
            else "if actions are in other units, declare their bounds with action_low and "
            f"action_high (here they span {array.min():g} to {array.max():g}), or take those of "
            "the data with action_bounds='data', in Python, in a file NAME.columns.toml beside the "
            "data, or with a command's `--action-low`, `--action-high` or `--action-bounds data`"
            + (f"; {_numbered(array)}" if whole else "")
        )
        raise DataError(
            f"actions holds {array[row, component]:g} at row {row}, component {component}, outside "
            f"the bounds {lower[component]:g} to {upper[component]:g} (so do {affected:,} of "
            f"{rows:,} rows): {remedy}"
        )
    if whole and options.discrete is None:
        remark(metadata, f"actions are read as continuous; {_numbered(array)}")
    canonical = np.empty_like(array)
    for block, to in zip(blocks(array), blocks(canonical), strict=True):
        # In double precision, which is exact for the usual bounds.
        np.clip(
            space.to_canonical(block.astype(np.float64)), -1.0, 1.0, out=to, casting="same_kind"
        )
    return canonical, space


def _few_whole(array: np.ndarray) -> bool:
    """Whether continuous actions are a few whole numbers, as discrete ones that became floats."""
    if array.shape[1] != 1 or not np.all(array[:64] == np.floor(array[:64])):
        return False
    return bool(np.all(array == np.floor(array))) and 1 < np.unique(array).size <= _FEW_ACTIONS


def _numbered(array: np.ndarray) -> str:
    found = np.unique(array).astype(np.int64)
    # As of whole numbers, one that does not occur among few is still an action.
    few = np.ptp(found) < _FEW_ACTIONS
    labels = np.arange(found[0], found[-1] + 1) if few else found
    shown = labels[:8].tolist()
    more = " …" if labels.size > 8 else ""
    return (
        f"all of them are whole numbers: if they number discrete actions, say action_labels="
        f"{shown}{more} (`--action-labels {' '.join(map(str, shown))}{more}`)"
    )


def _bound(value, size: int, name: str) -> tuple[float, ...]:
    array = numbers(value, name).astype(np.float64).reshape(-1)
    if array.size not in (1, size):
        raise DataError(
            f"{name} has {array.size} components but actions have {size}: give one number, or one "
            "per component"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{name} is {array.tolist()}: bounds of actions must be finite")
    return tuple(float(bound) for bound in np.broadcast_to(array, (size,)))


def _data_bounds(array: np.ndarray, low, high) -> tuple[Any, Any]:
    """The smallest and the largest value of each component, where the user gave no bounds."""
    lower, upper = array.min(0).astype(np.float64), array.max(0).astype(np.float64)
    constant = np.flatnonzero(lower == upper)
    if constant.size and (low is None or high is None):
        raise DataError(
            f"component {constant[0]} of the actions is always {lower[constant[0]]:g}, which "
            "bounds nothing: leave it out, or declare action_low and action_high"
        )
    return (lower if low is None else low), (upper if high is None else high)


def _hot(array: np.ndarray, required: bool) -> np.ndarray | None:
    """The place of the single 1 in each row, if every row is so."""
    if array.ndim != 2 or array.shape[1] < 2 or not array.shape[0]:
        return None
    if not np.all((array == 0) | (array == 1)) or not np.all(array.sum(1) == 1):
        return None
    places = array.argmax(1)
    # Rows that are all alike may be anything.
    return places if required or np.ptp(places) > 0 else None


def _labels(given: Any, size: int | None = None) -> np.ndarray:
    labels = numbers(given, "action_labels").reshape(-1)
    whole = labels.size and np.all(labels == np.floor(labels)) and np.all(np.abs(labels) < 2**31)
    if not whole or np.unique(labels).size != labels.size:
        raise DataError("action_labels must be different whole numbers, one for each action")
    if size is not None and labels.size != size:
        raise DataError(f"there are {labels.size} action_labels for {size} actions")
    return labels.astype(np.int64)


def _discrete_actions(
    array: np.ndarray, count: int | None, given: Any, metadata: dict[str, Any]
) -> tuple[np.ndarray, Discrete]:
    check_finite(array, "actions")
    broken = np.flatnonzero(array != np.floor(array)) if array.dtype.kind == "f" else np.array([])
    if broken.size:
        raise DataError(
            f"actions holds {array[broken[0]]:g} at row {broken[0]}: discrete actions are whole "
            "numbers; for continuous actions say discrete=False"
        )
    if given is not None:
        labels = _labels(given, count)
        wrong = np.flatnonzero(~np.isin(array, labels))
        if wrong.size:
            raise DataError(
                f"actions holds {int(array[wrong[0]])} at row {wrong[0]}, which is none of the "
                f"{labels.size} action_labels: correct them"
            )
    else:
        labels = _inferred_labels(array, count, metadata)
    if labels is None:
        count = int(array.max()) + 1 if count is None else count
        if count > _MOST_ACTIONS:
            raise DataError(
                f"there would be {count:,} discrete actions: correct action_count, give "
                "action_labels, or say discrete=False if they are no set"
            )
        return array.astype(np.int32), Discrete(count)
    order = np.argsort(labels)
    places = order[np.searchsorted(labels[order], array)]
    return places.astype(np.int32), Discrete.of(labels.tolist())


def _inferred_labels(
    array: np.ndarray, count: int | None, metadata: dict[str, Any]
) -> np.ndarray | None:
    """The numbers of actions where nobody gives them; `None` for 0, 1, 2 and so on."""
    low, high = int(array.min()), int(array.max())
    span = high - low + 1
    if count is not None:
        if low >= 0 and high < count:
            return None
        if span != count:
            wrong = np.flatnonzero((array < 0) | (array >= count))
            raise DataError(
                f"actions holds {int(array[wrong[0]])} at row {wrong[0]}, but discrete actions are "
                f"numbered 0 to {count - 1}: renumber them, correct action_count, or give "
                "action_labels"
            )
        remark(metadata, f"actions are numbered {low} to {high}")
        return np.arange(low, high + 1)
    found = np.unique(array).astype(np.int64)
    if span > _FEW_ACTIONS and 2 * found.size < span:
        if found.size > _MOST_ACTIONS:
            raise DataError(
                f"there would be {found.size:,} discrete actions: say discrete=False if they are "
                "no set"
            )
        remark(
            metadata,
            f"the actions are the {found.size:,} numbers that occur between {low} and {high}; say "
            "action_labels or action_count if there are others",
        )
        return found
    if low < 0 or (low == 1 and found.size == high > 1):
        remark(
            metadata,
            f"actions are numbered {low} to {high}; say action_labels or action_count if there are "
            "others",
        )
        return np.arange(low, high + 1)
    return None
