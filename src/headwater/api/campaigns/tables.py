"""Experiments of a campaign in tables."""

import math
from pathlib import Path

from headwater.core.errors import DataError
from headwater.datasets.arrays import array_of, read_table


def read_points(path: str | Path) -> list[dict[str, int | float]]:
    """The rows of a table (`.csv`, `.parquet`), by column.

    Raises `DataError`, naming the file, for a column that does not hold finite numbers.
    """
    path = Path(path)
    try:
        arrays = read_table(path)
        columns = {name: array_of(arrays, name, "biuf").tolist() for name in arrays}
        for name, column in columns.items():
            wrong = [row for row, value in enumerate(column) if not math.isfinite(value)]
            if wrong:
                raise DataError(f"row {wrong[0] + 1}: {name} is not finite: leave such rows out")
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def read_experiments(
    path: str | Path, value: str, fidelities: int = 1
) -> tuple[list[dict[str, int | float]], list[int | float], list[int] | None]:
    """Points, what came out of them (the column `value`), and at which fidelity.

    The last is the column `fidelity` where there are several and the table has it, else `None`.
    Raises `DataError`, naming the file, if there are no values.
    """
    rows = read_points(path)
    if value not in rows[0]:
        raise DataError(f"{path}: there is no column '{value}': say which holds the values")
    values = [row.pop(value) for row in rows]
    if fidelities == 1 or "fidelity" not in rows[0]:
        return rows, values, None
    levels = [row.pop("fidelity") for row in rows]
    if any(level != int(level) for level in levels):
        raise DataError(f"{path}: fidelities are whole numbers, 0 for the cheapest")
    return rows, values, [int(level) for level in levels]
