"""`headwater train`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.frame import chosen_task, print_json, read_settings


def command(
    method: Annotated[str, tyro.conf.Positional, option("METHOD")],
    /,
    data: Annotated[str | None, option("DATA", "-d")] = None,
    env: Annotated[str | None, option("ENV", "-e")] = None,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    seeds: Annotated[int, option("N")] = 4,
    updates: Annotated[int, option("N")] = 100_000,
    steps: Annotated[int, option("N")] = 100_000,
    set: Settings = (),
    env_option: Settings = (),
    batch_size: Annotated[int, option("N")] = 256,
    top: Annotated[float | None, option("X")] = None,
    weights: Annotated[Literal["return", "advantage"] | None, option("{return,advantage}")] = None,
    temperature: Annotated[float, option("X")] = 0.1,
    from_disk: Flag = False,
    random_steps: Annotated[int | None, option("N")] = None,
    block: Annotated[int | None, option("N")] = None,
    evaluations: Annotated[int, option("N")] = 10,
    episodes: Annotated[int, option("N")] = 10,
    precision: Annotated[Literal["default", "bfloat16"], option("{default,bfloat16}")] = "default",
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
) -> None:
    """Train a method on logged experience, or online, with several seeds at once.

    Examples: `headwater train IQL --data log.parquet`, `headwater train BC -d log.npz --top 0.1`,
    `headwater train SAC --env HalfCheetah-v5 --steps 200000`.

    Args:
        method: Name of the method (see `headwater methods`).
        data: File or directory with logged experience, or name of a local Minari dataset.
        env: Where to evaluate, and for online methods to act: `pendulum`, `HalfCheetah-v5`,
            `envpool:Hopper-v4`, … By default what the data says; `none` for no evaluation.
        out: Directory of the run; by default `runs/METHOD-DATA`. It must not exist.
        seeds: How many seeds to train.
        updates: Gradient steps of an offline method.
        steps: Environment steps of an online method.
        set: A hyper-parameter; may be repeated.
        env_option: An option of the environment; may be repeated.
        batch_size: Rows per gradient step.
        top: Learn only from this fraction of the episodes, the best by return.
        weights: Draw rows by the return (RW) or the advantage (AW) of their episode; by default
            uniformly.
        temperature: Of the weights; smaller is more selective.
        from_disk: Leave the data (a column directory) on disk and draw from there.
        random_steps: Random steps of an online method before it learns; by default a tenth of the
            steps, at most 5,000.
        block: Environment steps between the updates of an online method, of which there are then as
            many; by default 1, or 8 where the simulator is not compiled.
        evaluations: How often to evaluate.
        episodes: Episodes per evaluation and seed.
        precision: Of the large products in networks while it learns: `bfloat16` is faster on
            processors with matrix units (AMX; needs the extra headwater[mkl]), and rounds to 8
            bits. Each product keeps to one thread, so have a seed for each processor.
        seed: Root of all randomness.
        json: Print the result as JSON.
    """
    from headwater.api.train import train
    from headwater.core.catalogue import build_method

    built = build_method(method, read_settings(set))
    name = type(built).__name__
    where = out or default_out(name, data, env)
    run = train(
        built,
        data,
        env=chosen_task(env, env_option),
        updates=updates,
        steps=steps,
        seeds=seeds,
        seed=seed,
        batch_size=batch_size,
        top=top,
        weights=weights,
        temperature=temperature,
        from_disk=from_disk,
        random_steps=random_steps,
        block=block,
        evaluations=evaluations,
        episodes=episodes,
        precision=precision,
        out=where,
        progress=None if json else True,
    )
    report(run, json)


def default_out(method: str, data: str | None, env: str | None) -> Path:
    """`runs/METHOD-DATA`, or the environment if there is no data."""
    of = Path(data).stem if data is not None else (env or "run")
    return Path("runs") / f"{method.lower()}-{of.replace('/', '-').replace(':', '-')}"


def report(run, json: bool) -> None:
    """Says how a run ended."""
    score, curve = run.score(), run.curve
    normalised = None
    if score is not None and run.references is not None:
        from headwater.evaluation.statistics import interval, seed_means

        normalised = interval(run.normalised(seed_means(run.final_returns)))
    if json:
        import dataclasses

        print_json(
            {
                "run": run.path,
                "method": type(run.method).__name__,
                "seeds": run.specification.seeds,
                "score": score and dataclasses.asdict(score),
                "normalised": normalised and dataclasses.asdict(normalised),
                "curve": curve and {"at": curve[0], "returns": curve[1]},
            }
        )
        return
    seeds = "1 seed" if run.seeds == 1 else f"{run.seeds} seeds"
    print(f"{type(run.method).__name__}, {seeds}: {run.path}")
    if score is None:
        print("not evaluated: give an environment with --env")
        return
    print(f"return {score}" + ("" if normalised is None else f", normalised {normalised}"))
    with_interval = "" if score.low is None else ", with its 95% interval"
    print(f"(interquartile mean over seeds of the last evaluation{with_interval})")
