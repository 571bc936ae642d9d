"""`headwater resume`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import option


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")], /, json: bool = False
) -> int:
    """Continue an interrupted run where its newest checkpoint left it, to the same numbers.

    Args:
        run: Directory of the run, or of a sweep. A finished one is left as it is.
        json: Print the result as JSON.
    """
    if (run / "sweep.json").is_file():
        from headwater.cli.sweep import command as sweep

        return sweep(run, json=json)
    from headwater.cli.train import report
    from headwater.verbs.execute import resume

    report(resume(run, progress=None if json else True), json)
    return 0
