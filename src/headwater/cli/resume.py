"""`headwater resume`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import option
from headwater.core.errors import SpecificationError


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")],
    /,
    env: Annotated[str | None, option("ENV", "-e")] = None,
    reward: Annotated[tuple[str, ...], option("REWARD…")] = (),
    judge: Annotated[str | None, option("JUDGE")] = None,
    json: bool = False,
) -> int:
    """Continue an interrupted run where its newest checkpoint left it, to the same numbers.

    Args:
        run: Directory of the run, or of a sweep. A finished one is left as it is.
        env: The environment, where it is one that a module of yours registers (`module:Name-v0`):
            a run's directory does not get to say what is imported.
        reward: What judges, where it is a Python function or one is among several: as for
            `headwater train`.
        judge: The Python function that judges pairs, where it is one.
        json: Print the result as JSON.
    """
    if (run / "sweep.json").is_file():
        if env is not None or reward or judge is not None:
            raise SpecificationError(
                "what a sweep learns from is in its table: leave out --env, --reward and --judge"
            )
        from headwater.cli.sweep import command as sweep

        return sweep(run, json=json)
    from headwater.api.execute import resume
    from headwater.cli.train import report

    report(
        resume(
            run, env=env, reward=list(reward) or None, judge=judge, progress=None if json else True
        ),
        json,
    )
    return 0
