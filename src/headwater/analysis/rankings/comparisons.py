"""What a judge said of pairs of participants, in the form that rankings are made from."""

from typing import NamedTuple

import numpy as np

from headwater.core.errors import DataError


class Comparisons(NamedTuple):
    """Pairs of participants, and which of the two a judge prefers.

    **Arguments:** `first`, `second`: participants by number, `[comparison]`; `outcome`: 1 where the
    first was preferred, 0 the second, 0.5 neither; `longer`: by how many steps the first's episode
    was longer, if that is known.
    """

    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    longer: np.ndarray | None = None


def checked(comparisons: Comparisons, participants: int) -> Comparisons:
    """The comparisons as arrays of equal length. Raises `DataError`, naming the comparison."""
    columns = [np.asarray(x) for x in comparisons[:3]]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        shapes = ", ".join(str(column.shape) for column in columns)
        raise DataError(
            f"participants and outcomes have shapes {shapes}: one of each is needed for every "
            "comparison"
        )
    if not columns[0].size:
        raise DataError("there is no comparison")
    for name, column in zip(("first", "second"), columns):
        wrong = np.flatnonzero(
            (column < 0) | (column >= participants) | (column != np.floor(column))
        )
        if wrong.size:
            raise DataError(
                f"comparison {wrong[0]}: the {name} is {column[wrong[0]]:g}, but participants are "
                f"numbered 0 to {participants - 1}"
            )
    same = np.flatnonzero(columns[0] == columns[1])
    if same.size:
        raise DataError(
            f"comparison {same[0]}: participant {columns[0][same[0]]:g} is compared with itself"
        )
    wrong = np.flatnonzero(~np.isin(columns[2], (0.0, 0.5, 1.0)))
    if wrong.size:
        raise DataError(
            f"comparison {wrong[0]}: the outcome is {columns[2][wrong[0]]:g}, but it is 1, 0 or 0.5"
        )
    longer = comparisons.longer
    if longer is not None:
        longer = np.asarray(longer, np.float64)
        if longer.shape != columns[0].shape or not np.isfinite(longer).all():
            raise DataError(
                f"longer has shape {longer.shape}: a finite number for each of the "
                f"{columns[0].size:,} comparisons is needed"
            )
    first, second = (column.astype(np.int64) for column in columns[:2])
    return Comparisons(first, second, columns[2].astype(np.float64), longer)
