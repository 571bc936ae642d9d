"""`headwater claim list`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    *,
    out: Annotated[Path, option("DIR", "-o")] = Path("results"),
    file: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, option("FILE")] = (),
    json: Flag = False,
) -> None:
    """List the claims, with the verdicts of the runs that are recorded.

    Args:
        out: Directory of the results.
        file: A Python file with claims of your own, which is executed; may be repeated.
        json: Print as JSON.
    """
    from headwater.evidence.record import read_records
    from headwater.evidence.registry import all_claims
    from headwater.evidence.summary import summarise

    records, complaints = read_records(out)
    summaries = summarise(all_claims(file).values(), records)
    if json:
        print_json([summary.to_json() for summary in summaries])
        return
    rows = [
        [
            summary.claim.name,
            ", ".join(summary.claim.methods),
            f"{summary.verdict}{_where(summary)}",
        ]
        for summary in summaries
    ]
    print_table("", ["claim", "methods", "verdict"], rows)
    print("headwater claim show NAME tells one of them; headwater claim run NAME runs it")
    for complaint in complaints:
        print(complaint, file=sys.stderr)


def _where(summary) -> str:
    if summary.scale is None:
        return ""
    count = len(summary.records)
    return f" ({summary.scale}, {count} run{'s' if count > 1 else ''})"
