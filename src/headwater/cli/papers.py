"""`headwater papers`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    of: Annotated[str | None, tyro.conf.Positional, option("RUN|METHOD|CLAIM|KEY")] = None,
    /,
    results: Annotated[Path, option("DIR", "-r")] = Path("results"),
    json: Flag = False,
) -> None:
    """List the papers with their methods and claims, or cite what a run or a method stands on.

    Examples: `headwater papers`, `headwater papers runs/iql-wsrl > references.bib`.

    Args:
        of: A run, a method, a claim or the key of a paper, whose BibTeX is printed; a table of all
            papers if left out.
        results: Directory with the records of claims, which the verdicts are from.
        json: Print as JSON.
    """
    from headwater.evidence.papers import coverage
    from headwater.evidence.record import read_records

    if of is not None:
        from headwater.api.evidence.papers import cite, papers_of

        if json:
            print_json(papers_of(of))
        else:
            print(cite(of))
        return
    records, complaints = read_records(results)
    found = coverage(records)
    if json:
        print_json([entry.to_json() for entry in found])
        return
    print_table(
        "",
        ["paper", "methods and analyses", "verdicts of claims"],
        [
            [
                f"{entry.paper.short}\n{entry.paper.key}",
                "\n".join(entry.methods + entry.analyses),
                ", ".join(f"{verdict}: {n}" for verdict, n in _verdicts(entry).items()),
            ]
            for entry in found
        ],
    )
    print("headwater papers KEY prints the BibTeX of one; headwater claim list names the claims")
    for complaint in complaints:
        print(complaint, file=sys.stderr)


def _verdicts(entry) -> Counter[str]:
    return Counter(summary.verdict for summary in entry.claims)
