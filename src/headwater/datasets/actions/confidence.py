"""Which actions of a log were logged, which are missing, and which were inferred.

One column says it of every row: 1 is an action that was logged, 0 one that nobody knows, and what
lies between is an action that was inferred, and how probably rightly.
"""

from typing import Any, Literal

import numpy as np

from headwater.core.errors import DataError, SpecificationError

MissingActions = Literal["keep", "drop"]
"""What becomes of rows whose action is missing."""
_LEAST, _MOST = 1e-6, 1.0 - 1e-6
"""Of the confidence in an action that was inferred, so that it is never taken for another."""
_REMEDY = (
    "if these rows have no action, say missing_actions='keep' to have them inferred, or 'drop' to "
    "leave them out (`--missing-actions`); else repair them"
)


def read_confidence(actions: Any, given: Any, missing: str | None, rows: int) -> np.ndarray | None:
    """The confidence in each action, float32 `[row]`; `None` if all are taken as logged.

    **Arguments:** `actions`: as the user has them; `given`: a column that says it, if there is one;
    `missing`: what the user says of rows without any number for an action; `rows`: of the data.

    Raises `DataError` for confidences that are none, and for rows without an action of which
    nothing is said; `SpecificationError` for another word than `keep` or `drop`.
    """
    if missing not in (None, "keep", "drop"):
        raise SpecificationError(
            f"missing_actions is '{missing}': say 'keep' to have these actions inferred, or 'drop' "
            "to leave the rows out"
        )
    if given is not None:
        return _checked(given, rows)
    gaps = _gaps(actions, rows)
    if missing is not None:
        return np.where(gaps, np.float32(0.0), np.float32(1.0))
    if gaps.any():
        row, more = int(np.argmax(gaps)), int(np.count_nonzero(gaps)) - 1
        others = f" (and {more:,} more such rows)" if more else ""
        raise DataError(f"actions holds nan at row {row}{others}: {_REMEDY}")
    return None


def filled(actions: Any, confidence: np.ndarray | None, discrete: bool | None, usual: Any) -> Any:
    """The actions with some action that fits in the rows that have none, to be read like others.

    **Arguments:** `discrete`: what the user says of the kind of the actions; `usual`: an
    action in case that no row has one.

    Raises `DataError` where gaps leave open whether whole numbers are names of actions.
    """
    array = np.asarray(actions)
    if confidence is None or not array.ndim or len(array) != len(confidence):
        return actions
    known = confidence > 0
    if known.all():
        return actions
    if array.dtype.kind == "f" and discrete is None and array.size == len(array):
        seen = array.reshape(-1)[known]
        if seen.size and np.all(seen == np.floor(seen)):
            raise DataError(
                "actions holds whole numbers, and gaps that leave open whether they are names of "
                "discrete actions: say action_labels=[…] (`--action-labels`) or discrete=True if "
                "they are, and discrete=False if not"
            )
    array = array.copy()
    if known.any():
        array[~known] = array[np.argmax(known)]
    elif discrete or array.dtype.kind == "f":
        array[:] = usual
    whole = discrete and array.dtype.kind == "f" and np.all(array == np.floor(array))
    return array.astype(np.int64) if whole else array


def inferred(confidence: np.ndarray) -> np.ndarray:
    """Confidences in actions that were inferred, strictly between those of missing and logged."""
    return np.clip(confidence, _LEAST, _MOST).astype(np.float32)


def _checked(given: Any, rows: int) -> np.ndarray:
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "biuf" or array.shape != (rows,):
        raise DataError(
            f"action_confidence has type {array.dtype} and shape {array.shape}: one number for "
            f"each of the {rows:,} rows is needed, 1 where the action was logged and 0 where there "
            "is none"
        )
    wrong = ~((array >= 0) & (array <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"action_confidence holds {array[row]:g} at row {row}: it is 1 where the action was "
            "logged, 0 where there is none, and between them where it was inferred"
        )
    return array.astype(np.float32)


def _gaps(actions: Any, rows: int) -> np.ndarray:
    """The rows of which no component is a number."""
    try:
        array = np.asarray(actions)
    except (ValueError, TypeError):
        return np.zeros(rows, bool)  # Whoever reads the actions says what is wrong with them.
    if array.dtype.kind != "f" or not array.size or array.shape[0] != rows:
        return np.zeros(rows, bool)
    return np.isnan(array.reshape(rows, -1)).all(axis=1).reshape(rows)
