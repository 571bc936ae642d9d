"""`headwater adapt`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import chosen_task, read_settings


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")],
    /,
    env: Annotated[str | None, option("ENV", "-e")] = None,
    recipe: Annotated[
        Literal["wsrl", "rlpd", "continue", "scratch"], option("{wsrl,rlpd,continue,scratch}", "-r")
    ] = "wsrl",
    steps: Annotated[int, option("N")] = 50_000,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    data: Annotated[str | None, option("DATA")] = None,
    set: Settings = (),
    env_option: Settings = (),
    batch_size: Annotated[int | None, option("N")] = None,
    warm_up_steps: Annotated[int | None, option("N")] = None,
    random_steps: Annotated[int | None, option("N")] = None,
    block: Annotated[int | None, option("N")] = None,
    updates_per_step: Annotated[int, option("N")] = 1,
    evaluations: Annotated[int, option("N")] = 20,
    episodes: Annotated[int | None, option("N")] = None,
    precision: Annotated[
        Literal["default", "bfloat16"] | None, option("{default,bfloat16}")
    ] = None,
    seed: Annotated[int | None, option("N")] = None,
    json: Flag = False,
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
        set: A hyper-parameter of the online method; may be repeated.
        env_option: An option of the environment; may be repeated.
        batch_size: Rows per gradient step; by default as in the run.
        warm_up_steps: Steps of the offline policy before the first update of `wsrl`; by
            default a fifth of the steps, at most 5,000.
        random_steps: Random steps of `rlpd` and `scratch` before the first update; by default
            a tenth of the steps, at most 5,000.
        block: Environment steps between updates, of which there are then as many; by
            default 1, or 8 where the simulator is not compiled.
        updates_per_step: That many times as many updates.
        evaluations: How often to evaluate.
        episodes: Episodes per evaluation and seed; by default as in the run.
        precision: Of the large products in networks (see `headwater train`); by default as in the
            run.
        seed: Root of all randomness; by default one more than the run's.
        json: Print the result as JSON.
    """
    from headwater.api.adapt import adapt
    from headwater.cli.train import report

    result = adapt(
        run,
        env=chosen_task(env, env_option),
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
        precision=precision,
        out=out or run.with_name(f"{run.name}-{recipe}"),
        progress=None if json else True,
    )
    report(result, json)
