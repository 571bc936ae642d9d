"""`headwater resume`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import option


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")], /, json: bool = False
) -> None:
    """Continue an interrupted run where its newest checkpoint left it, to the same numbers.

    Args:
        run: Directory of the run. A finished one is left as it is.
        json: Print the result as JSON.
    """
    from headwater.cli.train import report
    from headwater.verbs.execute import resume

    report(resume(run, progress=None if json else True), json)
