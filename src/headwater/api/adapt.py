"""Adapt what was learned from a log by acting, with as few new samples as possible."""

import dataclasses
import inspect
import math
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from headwater.api.execute import execute
from headwater.api.inputs import as_task, choose_transitions
from headwater.api.run import Run, open_run
from headwater.api.specifications.choices import MethodChoice, TaskChoice
from headwater.api.specifications.plan import UPSTREAM, Given
from headwater.api.specifications.specification import Specification, updates_of
from headwater.api.train import default_block
from headwater.core.catalogue import build_method, settings
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.method import AbstractActorCritic, AbstractEncoding, AbstractMethod
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import open_columns
from headwater.environments.registry import acted_in
from headwater.runs.feeds.table import flow_of
from headwater.runs.options import ADAPT, Recipe
from headwater.runs.recipes.dagger import check_clones
from headwater.runs.recipes.narrowness import narrow, recipe_for, spread_of_actions
from headwater.runs.recipes.online import (
    WARM_STARTS,
    WITH_LOG,
    WITH_WARM_UP,
    Budget,
    Start,
    Task,
    check_same_start,
    check_warm_start,
    continuing,
    critics_serve,
    in_stages_from,
    method_on_features,
    on_policy_method,
    online_method,
    rows_per_update,
    unconverged,
    warm_start,
)
from headwater.runs.stage import Outcome


def adapt(
    run: Run | str | Path,
    *,
    env: Task | str | None = None,
    data: Dataset | str | Path | None = None,
    set: dict[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Run:
    """Takes a run that learned from a log online; every seed goes on by itself.

    The recipe `"keep-data"` starts SAC from the offline actor and critics, and draws a share of
    every batch from the log, and may fall at first where the log is narrow, which is then said;
    `"proto"` does the same with PROTO, which is held near the offline policy: for such logs;
    `"staged"` does what `"proto"` does, and is held near what it has become since, each time that
    an eighth of the steps, in four whole episodes or more, has not returned less than before;
    `"by-log"` is `"staged"` where the log is narrow, that is, where its actions are spread about
    the offline policy by less than three quarters of what uniform ones would be, and `"keep-data"`
    elsewhere; `"wsrl"` starts SAC without the log, from what it then sees alone, and may fall at
    first; `"rlpd"` learns from nothing, with a share of every batch from the log; `"ppo"` starts
    PPO from the offline actor, which may be a clone, and draws it back to what it was, without the
    log; `"continue"` goes on with the offline method and a share of every batch from the log;
    `"dagger"` does so with a policy that clones, and learns from what an expert, whom the
    environment knows, would have done where the policy came to; `"scratch"` is the online method of
    `wsrl` from nothing and without the log: the twin that says what the log was worth. Where the
    offline critics are of other shapes than those that go online, or say nothing of the offline
    actor, `wsrl`, `keep-data`, `proto` and `staged` first fit fresh ones to it, on the log. A run
    that learned features of observations (`PVN`) goes on with `EncodedDQN` by `wsrl`, or by
    `keep-data` where its log has the rewards of the task.

    **Arguments:**

    - `run`: a finished offline run, or its directory.
    - `env`: where to act (default: where it was evaluated).
    - `data`: the log (default: what the run learned from).
    - `set`: hyper-parameters of the online method that differ from the recipe's.
    - `out`, `progress`: see `train`.
    - `options`: see below.

    Raises `SpecificationError` for what does not fit together, `RunError` if the run is not
    finished or `out` exists, `DataError` if the log cannot be used.
    """
    upstream = run if isinstance(run, Run) else open_run(run)
    chosen = ADAPT.settled(options)
    recipe: Recipe = chosen["recipe"]
    task = _task(upstream, env)
    before = upstream.specification
    choice, logged, top = None, None, None
    if recipe == "by-log":
        choice, logged = _log(upstream, data, False)
        assert logged is not None
        recipe, why = recipe_for(upstream.method, _spread(upstream, logged))
        chosen["recipe"] = recipe
        if progress is not False:
            print(why, file=sys.stderr)
    if chosen["keep_data"] is not None and recipe not in WITH_LOG:
        raise SpecificationError(
            f"the recipe '{recipe}' keeps no data: leave out keep_data, or use the recipe "
            "'keep-data'"
        )
    method, start = _method(recipe, upstream, task, set or {}, chosen["critic_fit_updates"])
    fits = start is not None and start.fit_updates > 0
    if recipe in WITH_LOG or fits:
        if choice is None:
            choice, logged = _log(upstream, data, fits and recipe not in WITH_LOG)
        top = before.options.top if data is None else None
    elif data is not None:
        where = " where the offline critics are taken over" if recipe in WARM_STARTS else ""
        raise SpecificationError(f"the recipe '{recipe}' uses no log{where}: leave out data")
    rollouts = flow_of(type(method)).rollouts
    features = isinstance(upstream.method, AbstractEncoding)
    if start is not None and not (fits or rollouts or features) and progress is not False:
        warning = unconverged(upstream.method, updates_of(before))
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    if recipe == "keep-data" and progress is not False and logged is not None:
        warning = narrow(upstream.method, _spread(upstream, logged))
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    same_task = before.task is None or before.task.same_as(TaskChoice.of(task))
    steps, begins_fresh = chosen["steps"], recipe in ("rlpd", "scratch")
    rows = _unless(chosen["batch_size"], before.options.batch_size)
    warm = min(5_000, steps // 5) if recipe in WITH_WARM_UP else 0
    block, copies = default_block(task), 1
    if rollouts:
        usual = flow_of(type(method)).usual
        block, copies = usual["block"], usual["copies"]
        rows = _unless(chosen["batch_size"], usual["batch_size"])
    specification = Specification(
        verb="adapt",
        method=MethodChoice.of(method),
        options=dataclasses.replace(
            before.options,
            **{
                **chosen,
                "keep_data": _unless(chosen["keep_data"], 0.5) if recipe in WITH_LOG else None,
                "batch_size": rows,
                "seed": _unless(chosen["seed"], before.options.seed + 1),
                "episodes": _unless(chosen["episodes"], before.options.episodes),
                "precision": _unless(chosen["precision"], before.options.precision),
                # The log, if any, is drawn uniformly.
                "top": top,
                "weights": None,
                "from_disk": False,
            },
        ),
        data=choice,
        task=TaskChoice.of(task),
        budget=Budget(
            steps=steps,
            rows=rows_per_update(method, rows),
            random_steps=_unless(
                chosen["random_steps"], min(5_000, steps // 10) if begins_fresh else 0
            ),
            warm_up_steps=_unless(chosen["warm_up_steps"], warm),
            block=_unless(chosen["block"], block),
            updates_per_step=chosen["updates_per_step"],
            copies=_unless(chosen["copies"], copies),
            rollouts=rollouts,
        ),
        start=start,
        references=before.references if same_task else None,
    )
    kept = None if begins_fresh else upstream
    return execute(
        specification, out=out, given=Given(logged, task), upstream=kept, progress=progress
    )


adapt.__doc__ = f"{inspect.cleandoc(adapt.__doc__ or '')}\n\n**Options:**\n\n{ADAPT.described()}\n"


def _task(upstream: Run, env: Task | str | None) -> Task:
    """Where to act. Raises if the run cannot go online, or not there."""
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
        task: Task | None = acted_in(before.task.build())
    else:
        task = as_task(env)
    if task is None:
        raise SpecificationError("adapting needs an environment to act in")
    reason = upstream.spaces.mismatch(task.spaces, "in the run", "in it")
    if reason is not None:
        raise SpecificationError(f"the run does not fit the environment {task.name}: {reason}")
    return task


def _method(
    recipe: Recipe, upstream: Run, task: Task, changes: dict[str, Any], fit_updates: int
) -> tuple[AbstractMethod, Start | None]:
    """What learns online, and what it takes over if it starts from the offline method.

    Raises `SpecificationError` for changes that would be of no effect.
    """
    offline = upstream.method
    if recipe == "dagger":
        check_clones(offline)
    if recipe in ("continue", "dagger"):
        method = _changed(continuing(offline), changes)
        check_same_start(offline, method)
        return method, None
    if recipe == "rlpd":
        known = settings(offline)
        shared = {name: known[name] for name in ("discount", "hidden_sizes") if name in known}
        return _changed(build_method("RLPD", shared), changes), None
    if "hidden_sizes" not in settings(offline):
        raise SpecificationError(
            f"{type(offline).__name__} has no hidden_sizes that the method of the recipe "
            f"'{recipe}' could take over: use the recipe 'continue' or 'rlpd'"
        )
    near = recipe in ("proto", "staged")
    usual: AbstractMethod
    if recipe == "ppo":
        usual = on_policy_method(offline)
    elif isinstance(offline, AbstractEncoding) and task.spaces.discrete and not near:
        usual = method_on_features(offline, learned=recipe != "scratch")
    else:
        usual = online_method(offline, task.spaces.discrete, near=near)
    if recipe == "staged":
        usual = in_stages_from(usual)
    temperature = _temperature(upstream, in_units_of_reward=recipe == "scratch")
    if temperature is not None and "initial_temperature" in settings(usual):
        # What it begins with, so that its twin from scratch begins with the same.
        usual = _changed(usual, {"initial_temperature": temperature})
    method = _changed(usual, changes)
    if recipe == "scratch":
        if changes.get("normalise_observations"):
            raise SpecificationError(
                "normalise_observations = True cannot take effect: what begins without a log "
                "knows no scale of observations; leave it out"
            )
        return method, None
    check_warm_start(offline, method)
    one = jax.tree.map(lambda leaf: leaf[0], upstream.state)
    # Before the log is asked for, since it may be that nothing can begin from this method.
    begin, key = warm_start(method, UPSTREAM), jax.random.key(0)
    eqx.filter_eval_shape(begin, {UPSTREAM: Outcome(offline, one)}, task.spaces, key)
    serve = recipe == "ppo" or critics_serve(method, offline, one, task.spaces)
    keep = "initial_temperature" not in changes
    return method, Start(0 if serve else fit_updates, keep_temperature=keep)


def _spread(upstream: Run, logged: Dataset) -> float:
    """Of the log's actions about the offline policies, in the mean over seeds.

    Infinite for what has no actor: nothing could be held near it.
    """
    if not isinstance(upstream.method, AbstractActorCritic):
        return math.inf
    data, seeds = logged.transitions(), jax.tree.leaves(upstream.state)[0].shape[0]
    states = [jax.tree.map(lambda leaf, at=i: leaf[at], upstream.state) for i in range(seeds)]
    spaces = upstream.spaces
    return float(np.mean([spread_of_actions(upstream.method, one, data, spaces) for one in states]))


def _changed(method: AbstractMethod, changes: dict[str, Any]) -> AbstractMethod:
    return build_method(type(method).__name__, {**settings(method), **changes})


def _temperature(upstream: Run, *, in_units_of_reward: bool) -> float | None:
    """Of the bonus for entropy that the offline method came to: its geometric mean over seeds.

    **Arguments:** `in_units_of_reward`: for what begins without the log and learns from rewards as
    they are; else in the units of the method, which go along with its networks.
    """
    method = upstream.method
    if not isinstance(method, AbstractActorCritic):
        return None
    parts = jax.vmap(method.parts)(upstream.state)
    found = parts.log_temperature
    if found is None:
        return None
    if in_units_of_reward:
        found = found - np.log(parts.normaliser.reward_scale)
    return float(f"{math.exp(np.mean(np.asarray(found))):.3g}")


def _log(upstream: Run, data: Dataset | str | Path | None, only_fit: bool):
    """The log: what was given, else what the offline run learned from."""
    if data is not None:
        return choose_transitions(data, None)
    choice = upstream.specification.data
    path = None if choice is None or choice.path is None else choice.place(upstream.path)
    why = ""
    if only_fit:
        why = (
            f" (the critics of {type(upstream.method).__name__} cannot be taken over, so that "
            "fresh ones are fitted on the log before it is dropped)"
        )
    if choice is None or path is None:
        raise SpecificationError(
            "the offline run's log was held in memory: pass it again as data, or give the run a "
            f"directory{why}"
        )
    if why and not path.exists():
        raise DataError(f"{path} is not there: pass the log as data{why}")
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
    if choice.path is not None and not Path(choice.path).is_absolute():
        # It lies in the directory of the offline run, which may be deleted: copied anew.
        chosen = dataclasses.replace(chosen, path=None)
    return chosen, loaded


def _unless(given: Any, default: Any) -> Any:
    return default if given is None else given
