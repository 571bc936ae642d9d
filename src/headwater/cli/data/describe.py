"""`headwater data describe`."""

import math
from pathlib import Path
from typing import Annotated, Any

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import print_json, print_table
from headwater.core.errors import SpecificationError


def command(
    data: Annotated[str, tyro.conf.Positional, option("DATA")],
    /,
    figure: Annotated[Path | None, option("PNG", "-o")] = None,
    reference: Annotated[str | None, option("REFERENCE")] = None,
    random_return: Annotated[float | None, option("X")] = None,
    online_return: Annotated[float | None, option("X")] = None,
    json: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Say what is in a dataset, and suggest what kind of method to expect to work.

    Args:
        data: File or directory, or name of a local Minari dataset. A file with arms (or actions),
            rewards and propensities but no observations is a log of decisions.
        figure: Where to draw, as PNG; by default nothing is drawn.
        reference: Another dataset, whose coverage SACo is relative to (a replay of online
            learning, say).
        random_return: Return of a random policy, for TQ; by default the dataset's reference.
        online_return: Best return of a policy trained online, for TQ; by default the same.
        json: Print as JSON.
    """
    from headwater.analysis.describe import describe
    from headwater.datasets.bandits.columns import holds_pulls
    from headwater.datasets.read import load
    from headwater.reports.dataset_figure import draw_description

    options = reading.given() or {}
    if holds_pulls(data, options.get("columns")):
        if figure is not None or reference is not None:
            raise SpecificationError(
                f"{data} is a log of decisions, of which nothing is drawn and no coverage is "
                "measured: leave out --figure and --reference"
            )
        _describe_decisions(data, options, json)
        return
    dataset = load(data, **options)
    description = describe(
        dataset,
        reference=None if reference is None else load(reference),
        random_return=random_return,
        online_return=online_return,
    )
    if figure is not None:
        draw_description(dataset, description, figure)
    if json:
        print_json(description.to_json())
        return
    print_table("", ["", ""], description.rows())
    if figure is not None:
        print(f"figure: {figure}")


def _describe_decisions(data: str, options: dict[str, Any], json: bool) -> None:
    from headwater.analysis.describe_pulls import describe_pulls
    from headwater.datasets.bandits.pulls_files import read_pulls_file

    read = read_pulls_file(data, reward_range=(-math.inf, math.inf), columns=options.get("columns"))
    description = describe_pulls(
        read.data, read.problem, name=Path(data).name, used=read.used, unused=read.unused
    )
    if json:
        print_json(description.to_json())
    else:
        print_table("", ["", ""], description.rows())
