"""`headwater sweep`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import FAILED, print_json, print_table
from headwater.core.errors import printable


def command(
    table: Annotated[Path, tyro.conf.Positional, option("FILE")],
    /,
    on: Annotated[Literal["local", "ray"], option("{local,ray}")] = "local",
    address: Annotated[str | None, option("HOST:PORT")] = None,
    jobs: Annotated[int | None, option("N", "-j")] = None,
    retries: Annotated[int, option("N")] = 2,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    json: Flag = False,
) -> int:
    """Train a table of methods, datasets, hyper-parameters and seeds; go on if given again.

    Exit status 0 says that every run came to its end. Example: `headwater sweep table.toml`, with
    `methods = ["IQL", "TD3BC"]`, `datasets = ["log.npz"]` and `grid.IQL.expectile = [0.7, 0.9]`
    in the file.

    Args:
        table: The table, in TOML or JSON (see docs/sweep.md); or the directory of an earlier sweep,
            to go on with it.
        on: Processes on this machine, or tasks of Ray.
        address: Of a running Ray cluster; by default Ray is started on this machine.
        jobs: Runs at a time, among which the cores are shared out; by default one for each core.
        retries: How often a run whose worker failed or died is tried again.
        out: Directory of the sweep; by default `sweeps/` and the name of the file.
        json: Print the result as JSON.
    """
    # This process only looks on: accelerators are for those that train.
    import jax

    jax.config.update("jax_platforms", "cpu")
    from headwater.api.sweeps.sweep import sweep

    found = sweep(
        table,
        on=on,
        address=address,
        jobs=jobs,
        retries=retries,
        out=out,
        progress=None if json else True,
    )
    report(found, json)
    return 0 if found.complete else FAILED


def report(found, json: bool) -> None:
    """Prints what a sweep found."""
    if json:
        print_json(found.to_json())
        return
    chosen = list(dict.fromkeys(name for row in found.rows for name in row.chosen))
    # What is the same everywhere tells nothing apart.
    chosen = [n for n in chosen if len({str(row.chosen.get(n)) for row in found.rows}) > 1]
    where = ["process"] * any(row.process is not None for row in found.rows)
    columns = ["method", "dataset", *where, *chosen, "seeds", "return", "normalised", ""]
    rows = []
    for row in found.rows:
        seeds = (
            str(row.requested) if row.seeds == row.requested else f"{row.seeds} of {row.requested}"
        )
        settings = [str(row.chosen.get(name, "")) for name in chosen]
        rows.append(
            [
                row.method,
                row.dataset or "",
                *([row.process or ""] if where else []),
                *settings,
                seeds,
                _cell(row.score),
                _cell(row.normalised),
                "" if row.state == "done" else row.state,
            ]
        )
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    print_table(
        str(found.path),
        [columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
    )
    if any(row.score is not None for row in found.rows):
        few = any(row.score is not None and row.score.low is None for row in found.rows)
        print(
            "return: interquartile mean over seeds of the last evaluation, with its 95% interval"
            + (" where there are at least three seeds" if few else "")
        )
    for name, message in found.failures.items():
        print(printable(f"{name} failed: {message}"))


def _cell(interval) -> str:
    # The number of seeds, which is why there may be no interval, has a column of its own.
    return "" if interval is None else str(interval).partition(" (no interval")[0]
