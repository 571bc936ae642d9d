"""`headwater data collect`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import print_json, print_table, read_options, read_settings


def command(
    env: Annotated[str, tyro.conf.Positional, option("ENV")],
    /,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    kinds: Annotated[
        tuple[
            Literal["random", "medium", "medium-replay", "medium-expert", "expert", "full-replay"],
            ...,
        ],
        option("KIND…"),
    ] = ("random", "medium", "medium-replay", "medium-expert", "expert"),
    transitions: Annotated[int, option("N")] = 200_000,
    steps: Annotated[int, option("N")] = 300_000,
    medium: Annotated[float, option("X")] = 1 / 3,
    method: Annotated[str | None, option("METHOD")] = None,
    set: Settings = (),
    batch_size: Annotated[int, option("N")] = 128,
    snapshots: Annotated[int, option("N")] = 60,
    seed: Annotated[int, option("N")] = 0,
    format: Literal["parquet", "npz", "arrow", "d4rl", "minari", "columns"] = "parquet",
    env_option: Settings = (),
    json: Flag = False,
) -> None:
    """Make datasets of graded quality, as D4RL did, by training a behaviour policy.

    Interrupted, it goes on where it was when the same command is given again.

    Args:
        env: The task: `pendulum`, `HalfCheetah-v5`, `envpool:Hopper-v4`, …
        out: Directory of the datasets; by default `data/ENV`.
        kinds: Which grades: `random`, a uniformly random policy; `medium`, one a third of the way
            to the best; `medium-replay`, what that one saw while it learned; `expert`, the best;
            `medium-expert`, medium and expert data together; `full-replay`, everything that was
            ever seen.
        transitions: How many to log with each policy.
        steps: Environment steps of the behaviour policy's training.
        medium: How far the medium policy is from random (0) to the best (1).
        method: The behaviour policy's online method; by default a small SAC, or DQN for discrete
            actions.
        set: A hyper-parameter of that method; may be repeated.
        batch_size: Rows per gradient step of its training.
        snapshots: How many times to keep the policy while it learns, to choose from.
        seed: Root of all randomness.
        format: Format of the datasets.
        env_option: An option of the environment; may be repeated.
        json: Print the result as JSON.
    """
    from headwater.api.collect import collect, default_behaviour
    from headwater.core.catalogue import build_method, settings
    from headwater.environments.registry import acted_in, make

    task = acted_in(make(env, **read_options(env_option)))
    behaviour = default_behaviour(task.spaces)
    if method is not None:
        behaviour = build_method(method, read_settings(set))
    elif set:
        name = type(behaviour).__name__
        behaviour = build_method(name, {**settings(behaviour), **read_settings(set)})
    result = collect(
        task,
        out or Path("data") / env.replace("/", "-").replace(":", "-"),
        kinds=kinds,
        transitions=transitions,
        steps=steps,
        medium=medium,
        behaviour=behaviour,
        batch_size=batch_size,
        snapshots=snapshots,
        seed=seed,
        format=format,
        progress=None if json else True,
    )
    if json:
        print_json(
            {
                "paths": result.paths,
                "scores": result.scores,
                "random": result.random,
                "medium": result.medium._asdict(),
                "expert": result.expert._asdict(),
                "behaviour": [snapshot._asdict() for snapshot in result.behaviour],
            }
        )
        return
    print_table(
        f"{env}: mean return of random actions {result.random:,.4g}",
        ["data", "mean return", "file"],
        [[kind, f"{result.scores[kind]:,.4g}", str(path)] for kind, path in result.paths.items()],
    )
    for name, snapshot in (("medium", result.medium), ("expert", result.expert)):
        print(f"{name}: the policy after {snapshot.steps:,} steps, {snapshot.score:,.4g} a time")
