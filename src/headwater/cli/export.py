"""`headwater export`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, option


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")],
    /,
    format: Annotated[
        Literal["onnx", "stablehlo", "safetensors"], option("{onnx,stablehlo,safetensors}", "-f")
    ] = "onnx",
    out: Annotated[Path | None, option("FILE", "-o")] = None,
    seed: Annotated[int, option("N")] = 0,
    overwrite: Flag = False,
) -> None:
    """Write the greedy policy of one seed for use without Headwater.

    It takes raw observations and gives actions in the units of the environment.

    Args:
        run: Directory of the run.
        format: `onnx` (needs the extra headwater[onnx]), `stablehlo` or `safetensors`.
        out: The file to write; by default named after the run and the seed.
        seed: Which of the run's seeds.
        overwrite: Replace the file if it exists.
    """
    from headwater.api.export import export

    print(export(run, out, format=format, seed=seed, overwrite=overwrite))
