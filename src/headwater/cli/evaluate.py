"""`headwater evaluate`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import chosen_task, print_json, print_table


def command(
    run: Annotated[Path, tyro.conf.Positional, option("RUN")],
    /,
    env: Annotated[str | None, option("ENV", "-e")] = None,
    episodes: Annotated[int, option("N")] = 100,
    explore: Flag = False,
    data: Annotated[str | None, option("DATA", "-d")] = None,
    estimators: Annotated[tuple[str, ...], option("NAME…")] = (),
    max_weight: Annotated[float, option("X")] = float("inf"),
    env_option: Settings = (),
    unseen_levels: Annotated[int, option("N")] = 0,
    reward: Annotated[tuple[str, ...], option("REWARD…")] = (),
    task: Annotated[int | None, option("N")] = None,
    seed: Annotated[int, option("N")] = 0,
    json: Flag = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Measure every seed's policy by acting, and from a log without acting if one is given.

    A run in a finite process is judged exactly, a run of a language model on held-out texts.

    Args:
        run: Directory of the run, which may still be unfinished.
        env: Where to act; by default where the run was evaluated; `none` for nowhere.
        episodes: How many, for each seed.
        explore: Act as in data collection instead of greedily.
        data: Logged experience for off-policy evaluation (expected discounted return; of a
            bandit, logged rounds); of a language model, texts to judge it on, by default those that
            the run held out. What the run learned from is read as the run read it, unless you say
            how.
        estimators: How to judge from the log: of fqe, is, wis, pdis, wpdis, dr, wdr, mis and drl;
            by default fqe, mis and drl, and wis and wdr where the policy has probabilities: over
            discrete actions, or with --explore.
        max_weight: What ratios of probabilities are clipped at, for less variance and some bias.
        env_option: An option of the environment; may be repeated.
        unseen_levels: Act also on as many levels that follow those of the environment and were
            never learned from, and on at most as many of its own, to see what is lost on new ones.
        reward: Of a language model's responses: the run of a reward model, file.py:function or
            exact-match, or several, which are added up (the run's own with its weights); by
            default what the run learned from.
        task: Which task it acts in, counted from 0, of a run that learned several one after the
            other; by default the last.
        seed: Root of the randomness of the episodes or of what is written.
        json: Print the result as JSON, raw returns included.
    """
    from headwater.api.evaluate import evaluate
    from headwater.api.run import open_run

    result = evaluate(
        run if task is None else open_run(run).for_task(task),
        env=chosen_task(env, env_option),
        episodes=episodes,
        explore=explore,
        data=data,
        estimators=estimators or None,
        max_weight=max_weight,
        unseen_levels=unseen_levels,
        reward=list(reward) or None,
        seed=seed,
        data_options=reading.given(),
        progress=None if json else True,
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
    if result.generalisation is not None:
        gap = result.generalisation
        print(f"return on {gap.seen_levels:,} levels of its own {gap.seen}")
        print(f"return on {gap.unseen_levels:,} levels that it never saw {gap.unseen}")
        print(f"generalisation gap {gap.gap}")
    if result.score is not None and result.scores is not None:
        print(f"{result.run} on {result.data}, {result.scores.shape[1]} rows")
        print(f"{result.measure} {result.score}")
        if result.base is not None:
            print(f"{result.measure} of the model that it began with {result.base:,.4g}")
        if result.perplexity is not None:
            print(f"perplexity {result.perplexity}")
        if result.win_rate is not None:
            print(f"win rate over the model that it began with {result.win_rate}")
        rows = [
            [str(i), f"{r.mean():,.4g}", f"{r.std():,.3g}"] for i, r in enumerate(result.scores)
        ]
        print_table("", ["seed", "mean", "deviation"], rows)
    if result.estimates is not None:
        _print_estimates(result)


def _print_estimates(result) -> None:
    """Prints what the estimators say of each seed, and below it why to distrust some of them."""
    rows, remarks = [], []
    for i, estimates in enumerate(result.estimates):
        for name, found in estimates.items():
            refused, size = found.refused is not None, found.effective_episodes
            between = "none" if found.low is None else f"{found.low:,.4g} to {found.high:,.4g}"
            rows.append(
                [
                    name,
                    str(i),
                    "refused" if refused else f"{found.value:,.4g}",
                    "" if refused else between,
                    "" if size is None else f"{size:,.1f} of {found.episodes:,}",
                    found.behaviour or "not needed",
                    found.verdict,
                ]
            )
            remarks += [
                f"{name}, seed {i}: {text}" for text in (found.refused, *found.warnings) if text
            ]
    title = (
        f"{result.run} judged from the log: discounted return of the {result.policy_judged} policy"
    )
    columns = ["estimator", "seed", "value", "interval", "effective episodes", "propensities"]
    print_table(title, [*columns, "verdict"], rows)
    for remark in remarks:
        print(remark)
