"""`headwater export`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, option


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")],
    /,
    format: Annotated[
        Literal["onnx", "stablehlo", "safetensors", "npz", "hugging-face"] | None,
        option("{onnx,stablehlo,safetensors,npz,hugging-face}", "-f"),
    ] = None,
    out: Annotated[Path | None, option("FILE", "-o")] = None,
    seed: Annotated[int, option("N")] = 0,
    task: Annotated[int | None, option("N")] = None,
    overwrite: Flag = False,
) -> None:
    """Write the greedy policy, or the language model, of one seed for use without Headwater.

    A policy takes raw observations and gives actions in the units of the environment.

    Args:
        run: Directory of the run.
        format: `onnx` (the default; needs the extra headwater[onnx]), `stablehlo` or
            `safetensors`; of a finite process `npz`, of a language model `hugging-face`.
        out: The file (or, of a language model, directory) to write; by default named after the run
            and the seed.
        seed: Which of the run's seeds.
        task: Which task the policy acts in, counted from 0, of a run that learned several one after
            the other; by default the last.
        overwrite: Replace the file if it exists.
    """
    from headwater.api.export import export

    print(export(run, out, format=format, seed=seed, task=task, overwrite=overwrite))
