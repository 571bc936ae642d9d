"""Adapt what was learned from a log by acting, with as few new samples as possible."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

from headwater.api.execute import execute
from headwater.api.inputs import as_task, choose_transitions
from headwater.api.run import Run, open_run
from headwater.api.specification import Given, MethodChoice, Specification, TaskChoice
from headwater.api.train import default_block
from headwater.core.catalogue import build_method, settings
from headwater.core.errors import DataError, RunError, SpecificationError, nearest
from headwater.core.method import AbstractMethod
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import open_columns
from headwater.runs.recipes.online import (
    Budget,
    Recipe,
    Task,
    continuing,
    online_method,
    rows_per_update,
)


def adapt(
    run: Run | str | Path,
    *,
    env: Task | str | None = None,
    recipe: Recipe | str = "wsrl",
    steps: int = 50_000,
    data: Dataset | str | Path | None = None,
    set: dict[str, Any] | None = None,
    batch_size: int | None = None,
    warm_up_steps: int | None = None,
    random_steps: int | None = None,
    block: int | None = None,
    updates_per_step: int = 1,
    seed: int | None = None,
    evaluations: int = 20,
    episodes: int | None = None,
    precision: str | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Run:
    """Takes a run that learned from a log online; every seed goes on by itself.

    **Arguments:**

    - `run`: a finished offline run, or its directory.
    - `env`: where to act (default: where it was evaluated).
    - `recipe`: `"wsrl"` starts SAC from the offline networks, warms up and drops the log; `"rlpd"`
      learns from nothing with half of every batch from the log; `"continue"` goes on with the
      offline method, half of every batch from the log; `"scratch"` is the online method of `wsrl`
      from nothing and without the log: the twin that says what the log was worth.
    - `steps`: new environment steps in all, warm-up included.
    - `data`: the log, for `rlpd` and `continue` (default: what the run learned from).
    - `set`: hyper-parameters of the online method that differ from the recipe's.
    - `batch_size`: rows per gradient step (default: that of the run).
    - `warm_up_steps`: of `wsrl`, by the offline policy before the first update (default: 5,000, at
      most a fifth of the steps); `random_steps`: of `rlpd` and `scratch`, at random (default:
      5,000, at most a tenth).
    - `block`: environment steps between updates, of which there are then as many (default: 1, or 8
      where the simulator is not compiled); `updates_per_step`: that many times as many.
    - `precision`: see `train` (default: that of the run; where this machine has it not, give
      `"default"`).
    - `seed`, `evaluations`, `episodes`, `out`, `progress`: see `train`.

    Raises `SpecificationError` for what does not fit together, `RunError` if the run is not
    finished or `out` exists, `DataError` if the log cannot be used.
    """
    upstream = run if isinstance(run, Run) else open_run(run)
    if recipe not in get_args(Recipe):
        raise SpecificationError(nearest(recipe, get_args(Recipe), "recipe"))
    if not upstream.finished:
        raise RunError(f"{upstream.path} is not finished: `headwater resume {upstream.path}` first")
    before = upstream.specification
    if before.flow.kind != "control":
        raise SpecificationError(
            f"{upstream.name} is a run of {type(upstream.method).__name__}, which does not act on "
            "observations: adapting is for methods that do"
        )
    if before.budget is not None:
        raise SpecificationError(f"{upstream.name} already learned online: adapt an offline run")
    if env is None:
        if before.task is None:
            raise SpecificationError(
                "give an environment: the offline run was not evaluated in any"
            )
        task: Task | None = before.task.build()
    else:
        task = as_task(env)
    if task is None:
        raise SpecificationError("adapting needs an environment to act in")
    reason = upstream.spaces.mismatch(task.spaces, "in the run", "in it")
    if reason is not None:
        raise SpecificationError(f"the run does not fit the environment {task.name}: {reason}")
    same_task = before.task is None or before.task.same_as(TaskChoice.of(task))
    method = _method(recipe, upstream.method, task.spaces.discrete, set or {})
    rows = before.options.batch_size if batch_size is None else batch_size
    assert rows is not None
    begins_fresh = recipe in ("rlpd", "scratch")
    warm = 0 if begins_fresh or recipe == "continue" else min(5_000, steps // 5)
    chosen, logged, top = None, None, None
    if recipe in ("rlpd", "continue"):
        chosen, logged = _log(upstream, data)
        top = before.options.top if data is None else None
    elif data is not None:
        raise SpecificationError(f"the recipe '{recipe}' uses no log: leave out data")
    options = dataclasses.replace(
        before.options,
        steps=steps,
        random_steps=random_steps,
        block=block,
        seed=before.options.seed + 1 if seed is None else seed,
        evaluations=evaluations,
        episodes=before.options.episodes if episodes is None else episodes,
        batch_size=rows,
        precision=before.options.precision if precision is None else precision,
        # The log, if any, is drawn uniformly beside what is acted.
        top=top,
        weights=None,
        from_disk=False,
    )
    asked = Specification(
        verb="adapt",
        method=MethodChoice.of(method),
        options=options,
        data=chosen,
        task=TaskChoice.of(task),
        budget=Budget(
            steps=steps,
            rows=rows_per_update(method, rows),
            random_steps=_unless(random_steps, min(5_000, steps // 10) if begins_fresh else 0),
            warm_up_steps=_unless(warm_up_steps, warm),
            block=default_block(task) if block is None else block,
            updates_per_step=updates_per_step,
        ),
        recipe=recipe,
        references=before.references if same_task else None,
    )
    kept = None if begins_fresh else upstream
    given = Given(logged, task)
    return execute(asked, out=out, given=given, upstream=kept, progress=progress)


def _method(
    recipe: str, offline: AbstractMethod, discrete: bool, changes: dict[str, Any]
) -> AbstractMethod:
    if recipe == "continue":
        method = continuing(offline)
    elif recipe == "rlpd":
        known = settings(offline)
        shared = {name: known[name] for name in ("discount", "hidden_sizes") if name in known}
        method = build_method("RLPD", shared)
    else:
        method = online_method(offline, discrete)
    return build_method(type(method).__name__, {**settings(method), **changes})


def _log(upstream: Run, data: Dataset | str | Path | None):
    """The log that is mixed in: what was given, else what the offline run learned from."""
    if data is not None:
        return choose_transitions(data, None)
    choice = upstream.specification.data
    if choice is None or choice.path is None:
        raise SpecificationError(
            "the offline run's log was held in memory: pass it again as data, or give the run a "
            "directory"
        )
    path = choice.place(upstream.path)
    assert path is not None
    chosen, loaded = choose_transitions(path, choice.options)
    assert chosen is not None
    # What was left on disk has a fingerprint of its own kind.
    known = (
        open_columns(path).fingerprint()
        if upstream.specification.options.from_disk
        else chosen.fingerprint
    )
    if choice.fingerprint not in (None, known):
        raise DataError(f"{path} is not what the offline run learned from: it has changed")
    if not Path(choice.path).is_absolute():
        # It lies in the directory of the offline run, which may be deleted: copied anew.
        chosen = dataclasses.replace(chosen, path=None)
    return chosen, loaded


def _unless(given: int | None, default: int) -> int:
    return default if given is None else given
