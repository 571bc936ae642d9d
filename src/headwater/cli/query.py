"""`headwater query`."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table
from headwater.core.errors import SpecificationError


def command(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, option("DIR…")],
    /,
    sql: Annotated[str | None, option("TEXT", "-q")] = None,
    json: Flag = False,
) -> None:
    """Look through the numbers of many runs.

    Example: `headwater query sweeps/table --sql "SELECT dataset, settings.expectile, max(score)
    FROM runs GROUP BY ALL"`.

    Args:
        paths: Directories of runs, of sweeps, or that hold some somewhere below.
        sql: A question in SQL (needs the extra headwater[duckdb]) about the tables `runs`,
            `evaluations` and `metrics`; by default the runs are listed.
        json: Print the rows as JSON.
    """
    from headwater.api.query import query

    found = query(paths, sql)
    names = found.column_names
    if json:
        for name in names:
            if names.count(name) > 1:
                raise SpecificationError(
                    f"two columns are called '{name}': tell them apart with AS"
                )
        print_json([dict(zip(names, map(_plain, row))) for row in zip(*_values(found))])
        return
    if sql is None:
        names = [name for name in names if name not in ("path", "settings")]
        names = [name for name in names if found.column(name).null_count < found.num_rows]
        found = found.select(names)
    columns = [[_shown(value) for value in column] for column in _values(found)]
    print_table("", names, list(zip(*columns)))


def _values(table: Any) -> list[list[Any]]:
    """The columns by position, since a question may give two of them the same name."""
    try:
        return [column.to_pylist() for column in table.columns]
    except (ValueError, OverflowError) as error:
        raise SpecificationError(
            f"the answer holds a date that no calendar has ({error}): cast it to a text"
        ) from None


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _shown(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
