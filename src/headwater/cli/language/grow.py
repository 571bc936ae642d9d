"""`headwater language grow`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json


def command(
    data: Annotated[Path, tyro.conf.Positional, option("FILE")],
    /,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    tokenizer: Annotated[Path | None, option("DIR")] = None,
    layers: Annotated[int, option("N")] = 6,
    width: Annotated[int, option("N")] = 128,
    heads: Annotated[int, option("N")] = 4,
    context: Annotated[int, option("N")] = 128,
    stages: Annotated[int, option("N")] = 3,
    updates: Annotated[int, option("N")] = 2_000,
    operator: Annotated[str, option("NAME")] = "midas",
    power: Annotated[float, option("X")] = 1.0,
    rows: Annotated[int, option("N")] = 32,
    learning_rate: Annotated[float, option("X")] = 1e-3,
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
) -> None:
    """Train a decoder from scratch on texts; it begins shallow and gets its layers in stages.

    The decoder is in OUT/model, a directory that transformers loads. The same command again
    continues a run that was interrupted.

    Example: `headwater language grow book.txt --layers 6 --stages 3 --updates 2000`.

    Args:
        data: A text file, or JSON Lines or Parquet in the columns that TRL uses.
        out: Directory of the run; by default `runs/grown-DATA`.
        tokenizer: Directory with a tokenizer.json; by default bytes are tokens.
        layers: Of the finished decoder, a multiple of the stages.
        width: Of its hidden states.
        heads: Of its attention.
        context: Tokens that it reads at most.
        stages: Depths that it goes through.
        updates: In all stages together.
        operator: midas (repeat the middle), gradual-stacking (repeat the last layers), random or
            silent (new layers), or raptr (all layers from the start, random parts of them learn).
        power: How much longer deep stages are; 0 makes all equally long.
        rows: Texts per update.
        learning_rate: At first; it falls to zero over all updates.
        seed: Root of all randomness.
        json: Print the result as JSON.
    """
    from headwater.api.language.grow import GrowthSettings, grow_language

    settings = GrowthSettings(
        data=str(data),
        tokenizer=None if tokenizer is None else str(tokenizer),
        layers=layers,
        width=width,
        heads=heads,
        context=context,
        stages=stages,
        updates=updates,
        operator=operator,
        power=power,
        rows=rows,
        learning_rate=learning_rate,
        seed=seed,
    )
    where = out or Path("runs") / f"grown-{data.stem}"
    done = grow_language(settings, where, progress=None if json else True)
    report(operator, done, json)


def report(name: str, done, json: bool) -> None:
    """Says how growing ended."""
    if json:
        print_json(
            {
                "run": done.path,
                "model": done.model,
                "metrics": done.metrics,
                "tokens_per_second": done.tokens_per_second,
            }
        )
        return
    shown = ", ".join(f"{metric} {value:.4g}" for metric, value in done.metrics.items())
    print(f"{name}: {done.path}\nlast: {shown}")
    print(f"about {done.tokens_per_second:,.0f} tokens a second")
    print(f"model: {done.model}")
