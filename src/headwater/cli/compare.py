"""`headwater compare`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, option("RUN…")],
    /,
    baseline: Annotated[str | None, option("TEXT")] = None,
    target: Annotated[float | None, option("X")] = None,
    names: Annotated[tuple[str, ...], option("NAME…")] = (),
    figure: Annotated[Path | None, option("PNG", "-o")] = None,
    level: Annotated[float, option("X")] = 0.95,
    json: Flag = False,
) -> None:
    """Set runs side by side: final returns with intervals, and how many samples a log saved.

    Args:
        runs: Directories of runs that were evaluated in the same task.
        baseline: Name of the run that the others are held against; by default the one that learned
            online without a log, if there is just one.
        target: The return whose samples are counted; by default nine tenths of the way from the
            first to the last level of the baseline.
        names: What to call the runs, one name each.
        figure: Where to draw learning curves, as PNG; by default nothing is drawn.
        level: Coverage of the intervals.
        json: Print the result as JSON.
    """
    from headwater.api.compare import compare

    result = compare(runs, names=names or None, baseline=baseline, target=target, level=level)
    drawn = None if figure is None else result.draw(figure)
    if json:
        print_json(result.to_json())
        return
    print_comparison(result)
    if drawn is not None:
        print(f"figure: {drawn}")


def print_comparison(result) -> None:
    """Prints the table of a comparison, and a sentence for each saving."""
    rows = []
    for row in result.rows:
        rows.append(
            [
                row.name,
                row.method,
                str(row.seeds),
                f"{row.steps:,}" if row.steps else "none",
                _cell(row.score),
                "" if row.normalised is None else _cell(row.normalised),
                "" if row.advantage is None else _cell(row.advantage.interval),
            ]
        )
    against = f"over {result.baseline}" if result.baseline else ""
    columns = ["run", "method", "seeds", "new steps", "return", "normalised", against]
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    print_table(
        result.task or "",
        [columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
    )
    few = any(row.score.low is None for row in result.rows)
    print(
        "interquartile mean over seeds of the last evaluation, with bootstrap intervals"
        + (" where there are at least three seeds" if few else "")
    )
    for row in result.rows:
        if row.savings is not None:
            print(f"{row.name}: {row.savings.sentence}")


def _cell(interval) -> str:
    # The number of seeds, which is why there is no interval, has a column of its own.
    return str(interval).partition(" (no interval")[0]
