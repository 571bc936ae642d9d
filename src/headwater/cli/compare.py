"""`headwater compare`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import print_json, print_table
from headwater.core.errors import SpecificationError


def command(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, option("RUN…")],
    /,
    baseline: Annotated[str | None, option("TEXT")] = None,
    target: Annotated[float | None, option("X")] = None,
    names: Annotated[tuple[str, ...], option("NAME…")] = (),
    figure: Annotated[Path | None, option("PNG", "-o")] = None,
    level: Annotated[float, option("X")] = 0.95,
    data: Annotated[str | None, option("DATA", "-d")] = None,
    estimator: Annotated[str, option("NAME")] = "mis",
    explore: Flag = False,
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Set runs side by side: final returns with intervals, and how many samples a log saved.

    With --data they are judged from a log instead, without acting: which of them to deploy, with
    the probability that it is the best and the confidence that it is better than the policy that
    logged.

    Args:
        runs: Directories of runs that were evaluated in the same task.
        baseline: Name of the run that the others are held against; by default the one that learned
            online without a log, if there is just one.
        target: The return whose samples are counted; by default nine tenths of the way from the
            first to the last level of the baseline.
        names: What to call the runs, one name each.
        figure: Where to draw learning curves, as PNG; by default nothing is drawn.
        level: Coverage of the intervals; with --data also with what confidence a run must be better
            than the behaviour to be deployed.
        data: Logged experience to judge from, better not what the runs learned from.
        estimator: With --data, how to judge: mis, or drl, fqe, dr, wdr, is, wis, pdis, wpdis.
        explore: With --data, judge the exploring policies instead of the greedy ones.
        seed: With --data, root of all randomness.
        json: Print the result as JSON.
    """
    from headwater.api.compare import compare, select
    from headwater.api.inputs import refuse_options

    if data is not None:
        if baseline is not None or target is not None or figure is not None:
            raise SpecificationError(
                "--baseline, --target and --figure are for runs that acted: leave them out with "
                "--data"
            )
        selection = select(
            runs,
            data,
            names=names or None,
            estimator=estimator,
            explore=explore,
            level=level,
            seed=seed,
            data_options=reading.given(),
            progress=None if json else True,
        )
        if json:
            print_json(selection.to_json())
        else:
            print_selection(selection)
        return
    refuse_options(reading.given(), "no data is given")
    result = compare(runs, names=names or None, baseline=baseline, target=target, level=level)
    drawn = None if figure is None else result.draw(figure)
    if json:
        print_json(result.to_json())
        return
    print_comparison(result)
    if drawn is not None:
        print(f"figure: {drawn}")


def print_selection(selection) -> None:
    """Prints what each run is worth by the log, and which to deploy."""
    rows = []
    for candidate in selection.candidates:
        if candidate.refused is not None:
            rows.append([candidate.name, "refused", *[""] * 4])
            continue
        own = candidate is selection.candidates[-1]
        rows.append(
            [
                candidate.name,
                _between(candidate.value, candidate.low, candidate.high),
                ""
                if own
                else _between(
                    candidate.advantage, candidate.advantage_low, candidate.advantage_high
                ),
                "" if own else f"{candidate.confidence_better:.3f}",
                f"{candidate.probability_best:.3f}",
                "deploy" if candidate.name == selection.deploy else "",
            ]
        )
    columns = ["run", "discounted return", "over the behaviour", "better with", "best with", ""]
    title = f"judged from {selection.episodes:,} episodes by {selection.estimator}"
    print_table(title, columns, rows)
    for candidate in selection.candidates:
        if candidate.refused is not None:
            print(f"{candidate.name}: {candidate.refused}")
    print(selection.sentence)


def _between(value, low, high) -> str:
    return f"{value:,.4g}" + ("" if low is None else f" ({low:,.4g} to {high:,.4g})")


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
    for remark in result.remarks:
        print(remark)
    for row in result.rows:
        if row.savings is not None:
            print(f"{row.name}: {row.savings.sentence}")


def _cell(interval) -> str:
    # The number of seeds, which is why there is no interval, has a column of its own.
    return str(interval).partition(" (no interval")[0]
