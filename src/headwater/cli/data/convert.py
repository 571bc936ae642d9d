"""`headwater data convert`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import read_settings
from headwater.core.errors import printable


def command(
    source: Annotated[str, tyro.conf.Positional, option("SOURCE")],
    target: Annotated[Path, tyro.conf.Positional, option("TARGET")],
    /,
    format: Annotated[
        Literal[
            "minari",
            "minari-arrow",
            "minari-parquet",
            "parquet",
            "arrow",
            "npz",
            "d4rl",
            "columns",
        ]
        | None,
        option("FORMAT", "-f"),
    ] = None,
    column: Settings = (),
    action_low: Annotated[tuple[float, ...], option("X…")] = (),
    action_high: Annotated[tuple[float, ...], option("X…")] = (),
    action_bounds: Annotated[Literal["data"] | None, option("data")] = None,
    action_labels: Annotated[tuple[int, ...], option("N…")] = (),
    horizon: Annotated[int | None, option("N")] = None,
    dones: Annotated[
        Literal["terminal", "truncated"] | None, option("{terminal,truncated}")
    ] = None,
    never_terminal: Flag = False,
    episodes_end: Annotated[
        Literal["terminal", "truncated"] | None, option("{terminal,truncated}")
    ] = None,
    episode_per_row: Flag = False,
    overwrite: Flag = False,
) -> None:
    """Rewrite a dataset in another format.

    A column directory (`columns`) is what `headwater train --from-disk` draws from; to it, data
    larger than memory is converted in blocks.

    Args:
        source: File or directory, or name of a local Minari dataset.
        target: What to write; it must not exist.
        format: Of the target: parquet, arrow, npz, d4rl, columns, minari, minari-arrow or
            minari-parquet; by default by its suffix, a name without one being a column directory.
        column: Which column plays which role, as ROLE=COLUMN or ROLE=FAMILY_*; may be repeated. The
            roles: observations, actions, rewards, next_observations, terminals, truncations,
            dones, ends, starts, episodes, steps; and unused, to leave columns alone.
        action_low: Lower bounds of the actions: one number, or one for each component.
        action_high: Upper bounds of the actions, likewise.
        action_bounds: Take the bounds of each component from the data.
        action_labels: The numbers of discrete actions, in order, where these are not 0, 1, 2 ….
        horizon: Time limit of an episode in steps.
        dones: What a column that only says "done" means.
        never_terminal: The process never ends by itself.
        episodes_end: How episodes end where only their number, a start or a counter shows that they
            do; by default truncated.
        episode_per_row: Every row is an episode of its own.
        overwrite: Replace the target if it exists.
    """
    from headwater.datasets.write import convert

    options = {
        "columns": {k: v.split(",") if "," in v else v for k, v in read_settings(column).items()},
        "action_low": list(action_low),
        "action_high": list(action_high),
        "action_bounds": action_bounds,
        "action_labels": list(action_labels),
        "horizon": horizon,
        "dones": dones,
        "never_terminal": never_terminal,
        "episodes_end": episodes_end,
        "episode_per_row": episode_per_row,
    }
    # Not by equality: a horizon of 0 is a mistake to be told.
    given = {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value != [] and value != {}
    }
    written = convert(
        source, target, format, overwrite=overwrite, options=given or None, tell=_tell
    )
    print(written)


def _tell(metadata: dict[str, Any]) -> None:
    """Says how the source was read, beside the output, which is the path alone."""
    from headwater.datasets.reading import reading_rows

    for label, text in reading_rows(metadata):
        print(f"data, {label}: {printable(text)}", file=sys.stderr)
