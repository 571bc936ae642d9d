"""`headwater demo`."""

from pathlib import Path
from typing import Annotated

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    out: Annotated[Path, option("DIR", "-o")] = Path("headwater-demo"),
    fresh: Flag = False,
    quick: Flag = False,
    json: Flag = False,
) -> None:
    """Show the whole idea in a few minutes: log, learn offline, adapt, count the samples saved.

    A log of clumsy episodes is recorded on one pendulum. A policy is learned from it offline and
    adapted to a pendulum with half as much mass again; a twin learns that one from scratch. What is
    there from an earlier, perhaps interrupted, demo is kept. Its runs are ordinary ones: `headwater
    compare`, `evaluate`, `resume` and `export` work on them.

    Args:
        out: Directory of the demo.
        fresh: Delete the demo that is in the directory and begin again.
        quick: Take seconds instead of minutes: everything is made, but nothing is learned.
        json: Print the result as JSON, and nothing else.
    """
    from rich.console import Console

    from headwater.api.demo import TARGET, demo, sentence

    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe or a file has no width of its own.
        console = Console(highlight=False, width=120)

    def say(line: str) -> None:
        headline = not line.startswith(" ")
        if headline:
            console.print()
        console.print(line, style="bold" if headline else None, markup=False, soft_wrap=True)

    if json:
        print_json(demo(out, quick=quick, fresh=fresh).to_json())
        return
    result = demo(out, quick=quick, fresh=fresh, say=say)
    print_table("", ["policy", "machine", "new samples", "return [95% interval]"], result.rows())
    console.print(sentence(result), style="bold", markup=False)
    if quick:
        console.print("(made with --quick: the numbers mean nothing)", markup=False)
    console.print()
    console.print(f"page     {result.page}", markup=False, soft_wrap=True)
    for path in result.figures.values():
        console.print(f"figure   {path}", markup=False, soft_wrap=True)
    runs = " ".join(str(result.runs[name]) for name in ("adapted", "scratch"))
    console.print(
        f"go on    headwater compare {runs} --target {TARGET:g}", markup=False, soft_wrap=True
    )
    console.print(f"\n{result.seconds:.0f} s", markup=False)
