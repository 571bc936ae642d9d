"""How probable each logged action was when it was chosen: reading it, and checking it."""

import numpy as np

from headwater.core.errors import DataError
from headwater.core.spaces import Box, Discrete

SLACK = 1e-5
"""What rounding to 32 bits may lift a probability of 1 by."""
_AGREE = 1e-2
"""How far a logarithm may lie from that of the number beside it, which may have few digits."""
_INSTEAD = (
    "correct these rows, or leave the column alone with columns={'unused': 'NAME'} "
    "(`headwater data convert --column unused=NAME`)"
)


def canonical_log_propensities(
    propensities, logs, actions: np.ndarray, space: Box | Discrete
) -> np.ndarray | None:
    """Logarithms of the probabilities (or densities) of the logged actions, float32 `[row]`.

    Densities are of canonical actions, in [-1, 1]. `None` if neither is given.

    **Arguments:** `propensities`: `[row]`, or of every discrete action `[row, action]`; `logs`:
    their natural logarithms, likewise; `actions`: canonical, `[row]` or `[row, component]`;
    `space`: of the actions, in whose units densities are given.

    Raises `DataError`, with row and remedy, for what is no probability of an action that was taken,
    and where the two contradict each other.
    """
    found = None
    if propensities is not None:
        found = _of_actions(propensities, "propensities", actions, space)
        _refuse(found, ~(found > 0), "propensities", "an action that was logged had a probability "
                "above 0 (logarithms are given as log_propensities)")  # fmt: skip
        if isinstance(space, Discrete):
            _refuse(found, found > 1 + SLACK, "propensities", "a probability is at most 1")
        found = np.log(found)
    if logs is not None:
        given = _of_actions(logs, "log_propensities", actions, space)
        if isinstance(space, Discrete):
            _refuse(given, given > SLACK, "log_propensities",
                    "the logarithm of a probability is at most 0")  # fmt: skip
        if found is not None:
            apart = np.flatnonzero(np.abs(given - found) > _AGREE * np.maximum(1, np.abs(given)))
            if apart.size:
                raise DataError(
                    f"propensities says {np.exp(found[apart[0]]):.6g} and log_propensities "
                    f"{given[apart[0]]:.6g} at row {apart[0]}, which contradict each other: leave "
                    "one of the columns alone with columns={'unused': 'NAME'}"
                )
        found = given
    if found is None:
        return None
    if isinstance(space, Discrete):
        return np.minimum(found, 0.0).astype(np.float32)
    return (found + log_volume(space)).astype(np.float32)


def log_volume(space: Box | Discrete) -> float:
    """Logarithm of the volume of the user's units that one unit of canonical actions spans."""
    if isinstance(space, Discrete):
        return 0.0
    halves = 0.5 * (np.asarray(space.high, np.float64) - np.asarray(space.low, np.float64))
    return float(np.log(halves).sum())


def _of_actions(values, role: str, actions: np.ndarray, space: Box | Discrete) -> np.ndarray:
    """Finite numbers, one for each row, in double precision."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{role} has type {array.dtype}, which is not a number: convert it")
    rows = actions.shape[0]
    if isinstance(space, Discrete) and array.shape == (rows, space.count) and space.count > 1:
        array = array[np.arange(rows), actions]
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (rows,):
        raise DataError(
            f"{role} has shape {array.shape}: one number for each of the {rows:,} rows is needed, "
            "the probability of the action that was taken"
        )
    array = array.astype(np.float64)
    _refuse(array, ~np.isfinite(array), role, "every propensity must be a finite number")
    return array


def _refuse(array: np.ndarray, wrong: np.ndarray, role: str, why: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        more = int(np.count_nonzero(wrong)) - 1
        others = f" (and {more:,} more such values)" if more else ""
        raise DataError(f"{role} holds {array[row]:g} at row {row}{others}: {why}; {_INSTEAD}")
