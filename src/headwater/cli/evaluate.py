"""`headwater evaluate`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.frame import print_json, print_table, read_options


def command(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    /,
    env: Annotated[str | None, tyro.conf.arg(aliases=["-e"], metavar="ENV")] = None,
    episodes: int = 100,
    explore: bool = False,
    data: Annotated[str | None, tyro.conf.arg(aliases=["-d"], metavar="DATA")] = None,
    estimators: tuple[str, ...] = (),
    env_option: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    seed: int = 0,
    json: bool = False,
) -> None:
    """Measure every seed's policy by acting, and from a log without acting if one is given.

    Args:
        run: Directory of the run, which may still be unfinished.
        env: Where to act; by default where the run was evaluated; `none` for nowhere.
        episodes: Per seed.
        explore: Act as in data collection instead of greedily.
        data: Logged experience for off-policy evaluation (expected discounted return).
        estimators: Of fqe, is, wis, pdis, wpdis, dr, wdr; by default those that the policy allows.
        env_option: An option of the environment, as NAME=VALUE; may be repeated.
        seed: Of the episodes.
        json: Print the result as JSON, raw returns included.
    """
    from headwater.environments.registry import make
    from headwater.verbs.evaluate import evaluate

    options = read_options(env_option)
    result = evaluate(
        run,
        env=make(env, **options) if env is not None and options else env,
        episodes=episodes,
        explore=explore,
        data=data,
        estimators=estimators or None,
        seed=seed,
    )
    if json:
        print_json(result.to_json())
        return
    if result.score is not None and result.returns is not None:
        print(f"{result.run} in {result.environment}, {episodes} episodes for each seed")
        print(f"return {result.score}")
        if result.normalised is not None:
            print(f"normalised {result.normalised}")
        rows = [
            [str(i), f"{r.mean():,.4g}", f"{r.std():,.3g}", f"{r.min():,.4g}", f"{r.max():,.4g}"]
            for i, r in enumerate(result.returns)
        ]
        print_table("", ["seed", "mean", "deviation", "lowest", "highest"], rows)
    for i, estimates in enumerate(result.estimates or []):
        for estimate in estimates.values():
            print(f"seed {i}, from the log: {estimate}")
