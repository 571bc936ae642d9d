"""`headwater report`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import print_json


def command(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, option("RUN…")],
    /,
    out: Annotated[Path, option("HTML", "-o")] = Path("report.html"),
    baseline: Annotated[str | None, option("TEXT")] = None,
    target: Annotated[float | None, option("X")] = None,
    names: Annotated[tuple[str, ...], option("NAME…")] = (),
    data: Annotated[Path | None, option("DATA", "-d")] = None,
    no_episodes: Flag = False,
    level: Annotated[float, option("X")] = 0.95,
    json: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Write one HTML page about runs: curves, intervals, savings, the policy at work, provenance.

    Args:
        runs: Directories of runs; those in different tasks get sections of their own.
        out: The page, which holds all pictures itself.
        baseline: Name of the run that the others are held against; by default the one that learned
            online without a log, if there is just one.
        target: The return whose samples are counted; by default nine tenths of the way from the
            first to the last level of the baseline.
        names: What to call the runs, one name each.
        data: Logged experience from which the policies are judged without acting.
        no_episodes: Do not act: leave out the episode of each policy.
        level: Coverage of the intervals.
        json: Print where the page is as JSON, and nothing else.
    """
    from headwater.api.report import report

    path = report(
        runs,
        out,
        names=names or None,
        baseline=baseline,
        target=target,
        data=data,
        episodes=not no_episodes,
        level=level,
        data_options=reading.given(),
        tell=(lambda line: None) if json else print,
    )
    if json:
        print_json({"page": str(path)})
        return
    print(f"page: {path}")
