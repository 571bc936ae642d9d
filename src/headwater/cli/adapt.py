"""`headwater adapt`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.frame import read_options, read_settings


def command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    /,
    env: Annotated[str | None, tyro.conf.arg(aliases=["-e"], metavar="ENV")] = None,
    recipe: Annotated[
        Literal["wsrl", "rlpd", "continue", "scratch"], tyro.conf.arg(aliases=["-r"])
    ] = "wsrl",
    steps: int = 50_000,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None,
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None,
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    env_option: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    warm_up_steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    random_steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    block: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    updates_per_step: int = 1,
    evaluations: int = 20,
    episodes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    json: bool = False,
) -> None:
    """Take an offline run online, each of its seeds by itself, with few new samples.

    `wsrl` starts SAC from the offline networks, warms up and drops the log; `rlpd` learns from
    nothing with half of every batch from the log; `continue` goes on with the offline method, half
    of every batch from the log; `scratch` is the online method of `wsrl` from nothing and without
    the log: the twin that says what the log was worth. Compare them with `headwater compare`.

    Args:
        run: Directory of a finished offline run.
        env: Where to act; by default where the run was evaluated.
        recipe: How to go online.
        steps: New environment steps in all, warm-up included.
        out: Directory of the new run; by default RUN-RECIPE. It must not exist.
        data: The log, for `rlpd` and `continue`; by default what the run learned from.
        set: A hyper-parameter of the online method, as NAME=VALUE; may be repeated.
        env_option: An option of the environment, as NAME=VALUE; may be repeated.
        batch_size: Rows per gradient step; by default as in the run.
        warm_up_steps: Steps of the offline policy before the first update of `wsrl`.
        random_steps: Random steps of `rlpd` and `scratch` before the first update.
        block: Environment steps between updates, of which there are then as many.
        updates_per_step: That many times as many updates.
        evaluations: How often to evaluate.
        episodes: Episodes per evaluation and seed; by default as in the run.
        seed: Root of all randomness; by default one more than the run's.
        json: Print the result as JSON.
    """
    from headwater.cli.train import report
    from headwater.core.errors import SpecificationError
    from headwater.environments.registry import make
    from headwater.verbs.adapt import adapt

    options = read_options(env_option)
    if options and env is None:
        raise SpecificationError("--env-option needs --env: the environment that it is for")
    result = adapt(
        run,
        env=make(env, **options) if env is not None and options else env,
        recipe=recipe,
        steps=steps,
        data=data,
        set=read_settings(set),
        batch_size=batch_size,
        warm_up_steps=warm_up_steps,
        random_steps=random_steps,
        block=block,
        updates_per_step=updates_per_step,
        seed=seed,
        evaluations=evaluations,
        episodes=episodes,
        out=out or run.with_name(f"{run.name}-{recipe}"),
        progress=None if json else True,
    )
    report(result, json)
