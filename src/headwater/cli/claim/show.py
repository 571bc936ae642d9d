"""`headwater claim show`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json


def command(
    name: Annotated[str, tyro.conf.Positional, option("CLAIM")],
    /,
    out: Annotated[Path, option("DIR", "-o")] = Path("results"),
    file: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, option("FILE")] = (),
    json: Flag = False,
) -> None:
    """Tell one claim: the statement, where it is from, its scales, and what runs of it found.

    Args:
        name: A claim.
        out: Directory of the results.
        file: A Python file with claims of your own, which is executed; may be repeated.
        json: Print as JSON.
    """
    from headwater.evidence.record import latest, read_records
    from headwater.evidence.registry import claim_named
    from headwater.evidence.summary import summarise

    claim = claim_named(name, file)
    records, complaints = read_records(out, [name])
    if json:
        (summary,) = summarise([claim], records)
        runs = [record.to_json() for record in latest(records).values()]
        print_json({**summary.to_json(), "runs": runs})
        return
    print(f"{claim.name}\n\n{claim.statement}\n")
    print(f"paper    {claim.source}")
    if claim.methods:
        print(f"methods  {', '.join(claim.methods)}")
    for scale, arguments in claim.scales.items():
        text = ", ".join(f"{key}={value}" for key, value in arguments.items())
        print(f"{scale:<8} {text or 'as it is'}")
    if claim.learned:
        print(f"\nlearned  {claim.learned}")
    for record in latest(records).values():
        print()
        for line in record_lines(record):
            print(line)
    if not records:
        print(f"\nnothing is recorded in {out}: headwater claim run {name}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)


def record_lines(record) -> list[str]:
    """A record in a few lines: the verdict first, then its reasons."""
    commit = (record.commit or "no commit")[:9] + (" with changes" if record.dirty else "")
    lines = [
        f"{record.claim}: {record.outcome} "
        f"({record.scale}, seed {record.seed}, {record.seconds:.1f} s, {commit})"
    ]
    lines += [f"  {criterion}" for criterion in record.criteria]
    if record.message:
        lines.append(f"  {record.message}")
    return lines
