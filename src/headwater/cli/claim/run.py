"""`headwater claim run`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.claim.show import record_lines
from headwater.cli.frame import FAILED, print_json, print_table
from headwater.core.errors import SpecificationError


def command(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, option("CLAIM…")] = (),
    /,
    all: Flag = False,
    scale: Annotated[Literal["smoke", "small", "paper"], option()] = "small",
    seed: Annotated[tuple[int, ...], option("N…")] = (0,),
    jobs: Annotated[int, option("N", "-j")] = 1,
    out: Annotated[Path, option("DIR", "-o")] = Path("results"),
    again: Flag = False,
    file: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, option("FILE")] = (),
    json: Flag = False,
) -> int:
    """Run claims, print what they find, and record it in OUT/CLAIM.jsonl.

    Exit status 0 says that every experiment ran, whatever its verdict.

    Args:
        names: Claims to run.
        all: Run all of them, but those that this code was recorded for already.
        scale: How large: seconds, minutes, or as in the paper.
        seed: Of the instances and all randomness; several seeds are several runs.
        jobs: How many to run at a time, each in a process of its own.
        out: Directory of the results.
        again: With --all, run those that are recorded as well.
        file: A Python file with claims of your own, which is executed; may be repeated.
        json: Print as JSON.
    """
    from headwater.api.evidence.claims import run_claims

    if all == bool(names):
        raise SpecificationError("name the claims to run, or give --all (but not both)")

    def say(record) -> None:
        if not json:
            print("\n".join(record_lines(record)), flush=True)

    done = run_claims(
        None if all else list(dict.fromkeys(names)),
        scale=scale,
        seeds=seed,
        jobs=jobs,
        out=out,
        again=again,
        files=file,
        say=say,
    )
    if json:
        print_json([record.to_json() for record in done.records])
    else:
        _print_count(done, scale, out)
    for complaint in done.complaints:
        print(complaint, file=sys.stderr)
    return FAILED if any(record.outcome == "error" for record in done.records) else 0


def _print_count(done, scale: str, out: Path) -> None:
    if len(done.records) > 1:
        rows = [
            [record.claim, str(record.seed), record.outcome, f"{record.seconds:.1f}"]
            for record in done.records
        ]
        print_table("", ["claim", "seed", "verdict", "seconds"], rows)
    counts = {}
    for record in done.records:
        counts[record.outcome] = counts.get(record.outcome, 0) + 1
    parts = [f"{count} {outcome}" for outcome, count in sorted(counts.items())]
    if done.kept:
        parts.append(f"{len(done.kept)} recorded before (--again runs them too)")
    if done.without:
        parts.append(f"{len(done.without)} without the scale {scale}")
    print(f"{', '.join(parts) or 'nothing to run'}; results: {out}")
