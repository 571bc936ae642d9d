"""`headwater advise`."""

from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import chosen_task, print_json, print_table


def command(
    data: Annotated[str, tyro.conf.Positional, option("DATA")],
    /,
    then: Annotated[tuple[str, ...], option("DATA…")] = (),
    env: Annotated[str | None, option("ENV", "-e")] = None,
    attempt: Annotated[bool, tyro.conf.arg(name="try", help_behavior_hint="")] = False,
    updates: Annotated[int, option("N")] = 5_000,
    seeds: Annotated[int, option("N")] = 3,
    episodes: Annotated[int, option("N")] = 20,
    fine_tune: Annotated[int, option("STEPS")] = 0,
    env_option: Settings = (),
    json: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Say which methods to try on a log and why, or that it is not worth learning from.

    Examples: `headwater advise log.parquet`, `headwater advise log.parquet --try --env pendulum`,
    `headwater advise log.parquet --try --env pendulum --fine-tune 5000`.

    Args:
        data: Logged transitions: a file, a directory, or a local Minari dataset.
        then: Logs of the tasks that follow that of DATA, in their order.
        env: Where to judge what is tried; by default what the data says; `none` to judge from the
            log alone.
        attempt: Train what is recommended briefly, and compare it with intervals.
        updates: Of each that is tried.
        seeds: Of each that is tried.
        episodes: Per seed, to judge what is tried in the environment.
        fine_tune: Environment steps for which the best is adapted and its twin learns from nothing,
            to say how many samples the log saves; 0 for not.
        env_option: An option of the environment; may be repeated.
        json: Print as JSON.
    """
    from headwater.api.data.advise import advise

    report = advise(
        [data, *then] if then else data,
        env=chosen_task(env, env_option),
        attempt=attempt,
        updates=updates,
        seeds=seeds,
        episodes=episodes,
        fine_tune=fine_tune,
        data_options=reading.given(),
        progress=False if json else None,
    )
    if json:
        print_json(report.to_json())
        return
    print_table("", ["", ""], report.rows())
