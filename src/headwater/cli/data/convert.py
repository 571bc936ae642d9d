"""`headwater data convert`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
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
    overwrite: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Rewrite a dataset in another format.

    A column directory (`columns`) is what `headwater train --from-disk` draws from; to it, data
    larger than memory is converted in blocks.

    Args:
        source: File or directory, or name of a local Minari dataset.
        target: What to write; it must not exist.
        format: Of the target: parquet, arrow, npz, d4rl, columns, minari, minari-arrow or
            minari-parquet; by default by its suffix, a name without one being a column directory.
        overwrite: Replace the target if it exists.
    """
    from headwater.datasets.write import convert

    written = convert(
        source, target, format, overwrite=overwrite, options=reading.given(), tell=_tell
    )
    print(written)


def _tell(metadata: dict[str, Any]) -> None:
    """Says how the source was read, beside the output, which is the path alone."""
    from headwater.datasets.reading import reading_rows

    for label, text in reading_rows(metadata):
        print(f"data, {label}: {printable(text)}", file=sys.stderr)
