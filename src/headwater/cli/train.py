"""`headwater train`."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from headwater.cli.arguments import Flag, Settings, option
from headwater.cli.data.reading_options import AS_IT_IS, Reading
from headwater.cli.frame import chosen_task, print_json, read_options, read_settings


def command(
    method: Annotated[str, tyro.conf.Positional, option("METHOD")],
    /,
    data: Annotated[str | None, option("DATA", "-d")] = None,
    env: Annotated[str | None, option("ENV", "-e")] = None,
    process: Annotated[str | None, option("PROCESS", "-p")] = None,
    model: Annotated[Path | None, option("DIR", "-m")] = None,
    reward: Annotated[tuple[str, ...], option("REWARD…")] = (),
    judge: Annotated[str | None, option("JUDGE")] = None,
    out: Annotated[Path | None, option("DIR", "-o")] = None,
    then: Annotated[tuple[str, ...], option("DATA…")] = (),
    set: Settings = (),
    env_option: Settings = (),
    process_option: Settings = (),
    json: Flag = False,
    reading: Reading = AS_IT_IS,
    options: Any = None,
) -> None:
    """Train a method, from whatever it learns from, with several seeds at once.

    Examples: `headwater train IQL --data log.parquet`, `headwater train BC -d log.npz --top 0.1`,
    `headwater train SAC --env HalfCheetah-v5 --steps 200000`,
    `headwater train UCBVI --process river-swim --steps 20000`,
    `headwater train SFT --model llama --data demonstrations.jsonl`,
    `headwater train GRPO --model llama --data questions.jsonl --reward rewards.py:brevity`.

    Args:
        method: Name of the method (see `headwater methods`).
        data: Logged transitions: a file, a directory, or a local Minari dataset. Episodes or
            comparisons of a finite process: `.npz`, `.csv` or `.parquet`. Texts: JSON Lines,
            Parquet or plain text, in the columns that TRL uses.
        env: Where to evaluate, and for methods that act: `pendulum`, `HalfCheetah-v5`,
            `envpool:Hopper-v4`, … By default what the data says; `none` for no evaluation.
        process: A finite process to act or be evaluated in: a name such as `river-swim`, or an
            `.npz` file of arrays (`transition`, `reward`, `initial`, `horizon`).
        model: Directory of a language model: config.json, safetensors, and tokenizer.json (bytes
            are tokens if it has none).
        reward: Of what a language model writes: `exact-match` with the file's completions (the
            default), the run of a RewardModel or a directory that transformers loads as one,
            or a Python function as `module:function` or `file.py:function`. Several are added
            up, as --reward-weights say.
        judge: Of pairs of texts, a Python function as `module:function` or `file.py:function`; by
            default the one with the higher reward tends to be preferred.
        out: Directory of the run; by default `runs/METHOD-DATA`. It must not exist. A language
            model is left in OUT/model, which transformers loads (not one with several experts).
        then: Logs of the tasks that follow that of `--data`, in their order, for methods that learn
            one task after the other.
        set: A hyper-parameter; may be repeated.
        env_option: An option of the environment; may be repeated.
        process_option: An option of a process by name; may be repeated.
        json: Print the result as JSON.
    """
    from headwater.api.standing import beside_behaviour
    from headwater.api.train import train
    from headwater.core.catalogue import build_method
    from headwater.core.errors import SpecificationError

    built = build_method(method, read_settings(set))
    name = type(built).__name__
    where = out or default_out(name, data, env or process)
    if then and data is None:
        raise SpecificationError("--then names the logs that follow that of --data: give it, too")
    run = train(
        built,
        [data, *then] if then else data,
        env=chosen_task(env, env_option),
        process=process,
        model=model,
        reward=list(reward) or None,
        judge=judge,
        data_options=reading.given(),
        process_options=read_options(process_option) or None,
        out=where,
        progress=None if json else True,
        **(options or {}),
    )
    report(run, json, beside_behaviour(run))


def default_out(method: str, data: str | None, env: str | None) -> Path:
    """`runs/METHOD-DATA`, or the environment or process if there is no data."""
    of = Path(data).stem if data is not None else (env or "run")
    return Path("runs") / f"{method.lower()}-{Path(of).name.replace(':', '-')}"


_COUNTED = {"bandits": "rounds", "black boxes": "evaluations"}
"""What regret is summed over, unless it is episodes."""


def report(run, json: bool, standing=None) -> None:
    """Says how a run ended, and with `standing` how its policy stands to its log's behaviour."""
    from headwater.core.method import (
        AbstractCompletionScorer,
        AbstractLabeller,
        AbstractRewardModel,
    )

    score, curve = run.score(), run.curve
    what = run.specification.score
    normalised = None
    if score is not None and run.references is not None:
        from headwater.evaluation.statistics import interval, seed_means

        normalised = interval(run.normalised(seed_means(run.final_returns)))
    model = None if run.path is None else run.path / "model"
    model = model if model is not None and model.is_dir() else None
    last = run.metrics[-1] if run.metrics else {}
    metrics = {n: sum(v) / len(v) for n, v in last.get("metrics", {}).items()}
    pace = None
    if run.tokens_per_update is not None and last:
        pace = last["updates_per_second"] * run.tokens_per_update * run.seeds
    if json:
        import dataclasses

        print_json(
            {
                "run": run.path,
                "method": type(run.method).__name__,
                "seeds": run.specification.seeds,
                "evaluated": what,
                "score": score and dataclasses.asdict(score),
                "normalised": normalised and dataclasses.asdict(normalised),
                "curve": curve and {"at": curve[0], "returns": curve[1]},
                "metrics": metrics,
                "bounds": run.bounds,
                "model": model,
                "tokens_per_second": pace,
                "beside_behaviour": standing and standing.to_json(),
            }
        )
        return
    seeds = "1 seed" if run.seeds == 1 else f"{run.seeds} seeds"
    print(f"{type(run.method).__name__}, {seeds}: {run.path}")
    if score is not None:
        print(f"{what} {score}" + ("" if normalised is None else f", normalised {normalised}"))
        with_interval = "" if score.low is None else ", with its 95% interval"
        which = "last evaluation"
        if run.keeps_best:
            which = "best evaluation, by which what is kept was chosen: it flatters"
        print(f"(interquartile mean over seeds of the {which}{with_interval})")
    elif isinstance(run.method, AbstractLabeller | AbstractRewardModel):
        print("last: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        print("label a log with it: `headwater data label DATA TARGET --run " + f"{run.path}`")
    elif run.base is not None:
        print("not evaluated: give a file or a share of the data with --held-out")
    elif run.specification.flow.kind == "bandits":
        print(
            "not evaluated: give a bandit with --env, or judge it on other rounds with `headwater "
            f"evaluate {run.path} --data ROUNDS`"
        )
    else:
        print("not evaluated: give an environment with --env, or a process with --process")
    if standing is not None:
        print(standing.sentence)
    if run.regret is not None:
        episodes, regret = run.regret
        what = _COUNTED.get(run.specification.flow.kind, "episodes")
        print(f"regret {regret[:, -1].mean():,.4g} over {episodes[-1]:,} {what}")
    if run.bounds is not None:
        print(f"certified to fall short by at most {run.bounds.max():,.4g}")
    if run.base is not None:
        print("last: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        if pace is not None:
            print(f"about {pace:,.0f} tokens a second")
        scores = isinstance(run.method, AbstractCompletionScorer)
        place = f"model: {model}"
        if model is None:
            place = "a reward model" if scores else "the model is in the run alone"
        if scores:
            place += ": use it, or the run, as --reward" if model else ": use it as --reward"
        print(place + (" (of the first seed)" if run.seeds > 1 and model else ""))
