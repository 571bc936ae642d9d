"""`headwater claim report`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json


def command(
    *,
    results: Annotated[Path, option("DIR")] = Path("results"),
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    file: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, option("FILE")] = (),
    json: Flag = False,
) -> None:
    """Write one page of all claims (HTML and Markdown), with a row and a figure for each.

    Args:
        results: Directory of the results.
        out: Where to write the page; by default the folder `local` of the results.
        file: A Python file with claims of your own, which is executed; may be repeated.
        json: Print where each claim stands as JSON as well.
    """
    from headwater.evidence.record import read_records
    from headwater.evidence.registry import all_claims
    from headwater.evidence.summary import summarise
    from headwater.reports.claims import write_claims

    records, complaints = read_records(results)
    known = all_claims(file)
    summaries = summarise(known.values(), records)
    unknown = sorted({record.claim for record in records} - set(known))
    complaints += [f"{results / name}.jsonl: there is no such claim (any more)" for name in unknown]
    shown, text = write_claims(summaries, out or results / "local", complaints)
    if json:
        print_json(
            {
                "page": shown,
                "text": text,
                "complaints": complaints,
                "claims": [summary.to_json() for summary in summaries],
            }
        )
        return
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"page: {shown}\ntext: {text}")
