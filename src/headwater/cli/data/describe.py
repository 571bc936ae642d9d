"""`headwater data describe`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import print_json, print_table


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
        data: File or directory, or name of a local Minari dataset.
        figure: Where to draw, as PNG; by default nothing is drawn.
        reference: Another dataset, whose coverage SACo is relative to (a replay of online
            learning, say).
        random_return: Return of a random policy, for TQ; by default the dataset's reference.
        online_return: Best return of a policy trained online, for TQ; by default the same.
        json: Print as JSON.
    """
    from headwater.analysis.describe import describe
    from headwater.datasets.read import load
    from headwater.reports.dataset_figure import draw_description

    dataset = load(data, **(reading.given() or {}))
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
