"""`headwater language counterfactuals`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json


def command(
    source: Annotated[Path, tyro.conf.Positional, option("FILE")],
    target: Annotated[Path, tyro.conf.Positional, option("TARGET")],
    /,
    swap: Annotated[tuple[str, ...], option("WORD=WORD")],
    columns: Annotated[tuple[str, ...], option("NAME")] = (),
    seed: Annotated[int, option("N")] = 0,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Add copies of texts in which words for a group of people are those for another group.

    Examples: `headwater language counterfactuals texts.jsonl both.jsonl --swap he=she his=her`,
    then `headwater train SFT --model llama --data both.jsonl --rank 8 --out runs/debias`. In
    `headwater train ResponseClassifier --model llama --adapters runs/debias/adapters --data
    labelled.jsonl` what the adapters add is kept under all that is learned.

    Rows without any of the words have no copy. Labels and rewards stay as they are.

    Args:
        source: JSON Lines, JSON, CSV or Parquet in the columns that TRL uses.
        target: What to write, as JSON Lines. It must not exist.
        swap: Sets of words, one for each group in one order of groups: he=she actor=actress. Of
            three groups or more another one is drawn for each row.
        columns: Of other names that hold texts.
        seed: Of that draw.
        overwrite: Replace the target if it exists.
        json: Print path and numbers of rows as JSON.
    """
    from headwater.api.language.counterfactuals import write_counterfactuals

    written = write_counterfactuals(
        source, target, swap, columns=columns, seed=seed, overwrite=overwrite
    )
    if json:
        print_json(
            {"path": str(written.path), "rows": written.rows, "counterfactuals": written.added}
        )
        return
    print(f"{written.path}: {written.rows} rows and {written.added} counterfactual ones")
