"""Columns as arrays of numbers that are checked, or refused with the row."""

from collections.abc import Iterator

import numpy as np

from headwater.core.errors import DataError

_BLOCK = 4096
"""Rows that are computed with in double precision at once."""


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time: in double precision all of them are slow to find room for."""
    for begin in range(0, len(array), _BLOCK):
        yield array[begin : begin + _BLOCK]


def numbers(values, column: str) -> np.ndarray:
    """A rectangular array of numbers. Raises `DataError`, naming the column, for others."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{column} is no rectangular array of numbers ({error}): give one row per step, all of "
            "the same shape"
        ) from None
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{column} has type {array.dtype}, which is not a number: convert it "
            "to float32 or int32"
        )
    return array


def check_finite(array: np.ndarray, column: str) -> None:
    """Raises `DataError`, with the first row and component, if a number is not finite."""
    good = np.isfinite(array)
    if good.all():
        return
    row, *rest = (int(index) for index in np.argwhere(~good)[0])
    place = f", component {rest[0]}" if rest else ""
    count = int(array.size - np.count_nonzero(good))
    others = f" (and {count - 1:,} more such values)" if count > 1 else ""
    raise DataError(
        f"{column} holds {array[(row, *rest)]} at row {row}{place}{others}: every number must be "
        "finite; remove or repair these rows"
    )


def empty_rows(values, rows: int) -> np.ndarray:
    """The rows that hold nothing but NaN, bool `[row]`."""
    array = np.asarray(values)
    if array.dtype.kind != "f" or array.ndim == 0 or array.shape[0] != rows:
        return np.zeros(rows, bool)
    return np.all(np.isnan(array.reshape(rows, -1)), axis=1)


def as_float(array: np.ndarray) -> np.ndarray:
    """The same in single precision, in one piece of memory."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def observations_of(values, column: str, unless=None, instead=None) -> np.ndarray:
    """Vectors of single precision, `[row, component]`, all finite.

    **Arguments:** `unless`: `[row]`, rows at which `instead` (of the same shape) takes the place of
    what is not finite. Raises `DataError`, naming the column and the row.
    """
    array = numbers(values, column)
    if array.ndim == 0:
        raise DataError(f"{column} is a single number: give one row per step")
    array = as_float(array.reshape(array.shape[0], int(np.prod(array.shape[1:], dtype=int))))
    if array.shape[0] and array.shape[1] == 0:
        raise DataError(f"{column} has rows without components: at least one number is needed")
    if unless is not None and instead is not None and array.shape == instead.shape:
        # What follows a terminal row means nothing and is often written as NaN.
        unusable = unless & ~np.isfinite(array).all(1)
        if unusable.any():
            array = array.copy()
            array[unusable] = instead[unusable]
    check_finite(array, column)
    return array


def one_per_row(values, column: str, rows: int) -> np.ndarray:
    """One number for each row, `[row]`. Raises `DataError` for another shape."""
    array = numbers(values, column)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{column} has shape {array.shape}: one number per row is needed")
    check_length(array, column, rows)
    return array


def check_length(array: np.ndarray, column: str, rows: int) -> None:
    """Raises `DataError` if the column has not as many rows as the observations."""
    if array.shape[0] != rows:
        raise DataError(
            f"{column} has {array.shape[0]:,} rows but observations has {rows:,}: all columns must "
            "have the same length"
        )


def scalars(values, column: str, rows: int) -> np.ndarray:
    """Finite numbers of single precision, `[row]`. Raises `DataError`."""
    array = as_float(one_per_row(values, column, rows))
    check_finite(array, column)
    return array


def flags(values, column: str, rows: int) -> np.ndarray:
    """False or true for each row, from 0 and 1 as well. Raises `DataError` for others."""
    array = one_per_row(values, column, rows)
    if array.dtype == bool:
        return array
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if wrong.size:
        raise DataError(
            f"{column} holds {array[wrong[0]]} at row {wrong[0]}: a flag is 0 or 1, false or true"
        )
    return array.astype(bool)
