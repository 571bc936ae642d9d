"""Carry out what a specification asks, in memory or in a directory."""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from headwater.api.data.notes import tell_of
from headwater.api.inputs import choose_rewards, open_function, open_rewards
from headwater.api.run import (
    ADAPTERS_DIRECTORY,
    MODEL_DIRECTORY,
    UPSTREAM_DIRECTORY,
    Run,
    newest,
    open_run,
    state_shapes,
)
from headwater.api.specifications.choices import ARMS_FILE, PROCESS_FILE, SPACE_FILE
from headwater.api.specifications.plan import UPSTREAM, Given, Plan, open_problem, plan
from headwater.api.specifications.specification import (
    Specification,
    check_numbers,
    stages_done,
    updates_of,
)
from headwater.core.errors import RunError, SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractCompletionScorer, AbstractTokenPolicy
from headwater.core.records import Pulls, Queries
from headwater.core.spaces import Spaces
from headwater.datasets.bandits.pulls_files import write_arms, write_pulls
from headwater.datasets.black_boxes.earlier_tasks import EarlierTasks, write_earlier_tasks
from headwater.datasets.black_boxes.queries_files import write_queries
from headwater.datasets.dataset import Dataset
from headwater.datasets.finite_files import write_log, write_process
from headwater.datasets.write import write
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox
from headwater.environments.registry import Acted
from headwater.evaluation.bandits import ExactReward
from headwater.evaluation.black_boxes.recommended import ArchiveCoverage, ExactValue
from headwater.evaluation.exact import ExactReturn
from headwater.evaluation.returns import evaluate_returns
from headwater.evaluation.texts import HeldOutScores
from headwater.networks.hugging_face import family_named
from headwater.networks.low_rank_adapters import Adapted
from headwater.networks.pretrained.adapters import read_adapters, write_adapters
from headwater.networks.reward_head import WithReward
from headwater.ops.products import check_precision, multiplying
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.directory import RunDirectory
from headwater.runs.files import fill_directory, write_json
from headwater.runs.layout import layout_of
from headwater.runs.loop import Evaluate, run
from headwater.runs.trackers.tracker import tracker_class

_DATA_DIRECTORY = "data"
"""Where a run's directory holds data that was given as an object."""
_LOG_FILE = "log.npz"
"""Where it holds episodes that were."""


def execute(
    specification: Specification,
    *,
    out: str | Path | None,
    given: Given | None = None,
    upstream: Run | None = None,
    progress: bool | None = None,
) -> Run:
    """The run that `specification` describes, from its beginning.

    **Arguments:** `out`: the run's directory, which must not exist; `None` keeps it in memory;
    `given`: what the caller has as objects; data without a file is copied into the directory, and
    so are a finite process and the part of `upstream` that is needed, so that the run can go on
    without them.
    """
    check_numbers(specification)
    check_precision(specification.options.precision)
    layout_of(specification.options.parallel)
    if out is not None:
        RunDirectory.refuse(out)
    if specification.options.track is not None:
        tracker_class(specification.options.track)
        if out is None:
            raise SpecificationError(
                "a tracker writes into the directory of a run, and this one has none: give out"
            )
    given = _opened(specification, given or Given())
    planned = plan(specification, None, given)
    if specification.options.keeps_best and _evaluation(specification, planned) is None:
        raise SpecificationError(
            f"{specification.method.name} is not evaluated while it learns, so that there is no "
            "best to keep: say what to evaluate on (env, process or held_out), or leave out "
            "keep_best and patience"
        )
    # Now, since a method that cannot begin should leave no directory behind.
    specification = complete(specification, planned, upstream)
    directory = None
    if out is not None:
        copied = specification.data is not None and specification.data.path is None
        if specification.data is not None and copied:
            name = _DATA_DIRECTORY if specification.flow.kind == "control" else _LOG_FILE
            specification = dataclasses.replace(
                specification, data=dataclasses.replace(specification.data, path=name)
            )
        later, held = list(specification.later), {}
        for i, choice in enumerate(later):
            if choice.path is None:
                name = f"{_DATA_DIRECTORY}-{i + 2}"
                later[i], held[name] = dataclasses.replace(choice, path=name), given.later[i]
        specification = dataclasses.replace(specification, later=tuple(later))

        def fill(temporary: Path) -> None:
            if copied and isinstance(given.data, Dataset):
                write(given.data, temporary / _DATA_DIRECTORY, "columns")
            elif copied:
                _write_log(temporary / _LOG_FILE, given.data, planned.problem)
            for name, log in held.items():
                write(log, temporary / name, "columns")
            if specification.flow.kind == "finite":
                write_process(temporary / PROCESS_FILE, _known_task(planned))
            if specification.flow.kind == "bandits":
                write_arms(temporary / ARMS_FILE, planned.problem)
            if specification.flow.kind == "black boxes":
                write_json(temporary / SPACE_FILE, planned.problem.to_json())
            if upstream is not None:
                save_run(upstream, temporary / UPSTREAM_DIRECTORY)

        directory = RunDirectory.create(out, specification.to_json(), fill)
    if (
        specification.data is not None
        and specification.flow.kind == "control"
        and progress is not False
    ):
        method = planned.fed.stage.method
        tell_of(given.data, specification.data.path, method)
        for log, choice in zip(given.later, specification.later):
            tell_of(log, choice.path, method)
    return _carry_out(specification, planned, directory, upstream, given, progress)


def _write_log(path: Path, data: Any, problem: Any) -> None:
    if isinstance(data, Pulls):
        write_pulls(path, data, problem)
    elif isinstance(data, Queries):
        write_queries(path, data, problem)
    elif isinstance(data, EarlierTasks):
        write_earlier_tasks(path, data)
    else:
        write_log(path, data)


def _known_task(planned: Plan) -> FiniteTask:
    """What there is of a finite process, as far as it is known."""
    return planned.process or FiniteTask.of(None, planned.problem)


def complete(
    specification: Specification, planned: Plan, upstream: Run | None = None
) -> Specification:
    """`specification` with what its data and its task say of the problem.

    Raises `SpecificationError` if the method cannot begin there.
    """
    references = (
        planned.references if specification.references is None else specification.references
    )
    problem = planned.problem
    specification = dataclasses.replace(
        specification,
        spaces=problem.to_json() if isinstance(problem, Spaces) else None,
        references=references,
        score=planned.score or "return",
        options=specification.options
        if specification.flow.kind == "control"
        else dataclasses.replace(specification.options, updates=planned.fed.stage.updates),
    )
    earlier = {} if upstream is None else {UPSTREAM: upstream.outcome}
    state_shapes(specification, specification.method.build(), problem, earlier)
    return specification


def resume(
    path: str | Path,
    *,
    data: Dataset | None = None,
    env: Acted | str | None = None,
    process: Any = None,
    reward: Any = None,
    judge: Any = None,
    progress: bool | None = None,
) -> Run:
    """Continues a run where its newest checkpoint left it; a finished run is returned as it is.

    **Arguments:** `path`: its directory; `data`: if it cannot be found where it was; `env`: the
    environment if it was passed as an object, or its name if a module is to be imported for it;
    `process`, `reward`, `judge`: if they were passed as objects, or are functions of a module.

    Raises `RunError` if there is no run at `path` or it cannot be continued, `DataError` if its
    data has changed, `SpecificationError` for the name of another environment.
    """
    directory = RunDirectory.open(path)
    specification = Specification.from_json(directory.specification, str(path))
    if specification.flow.kind == "control" and specification.spaces is None:
        raise RunError(
            f"{path} was not made by train or adapt: give its own command again to continue it"
        )
    if isinstance(env, str):
        if specification.task is None or specification.task.name != env:
            begun = "none" if specification.task is None else specification.task.name
            raise SpecificationError(f"{path} was begun in the environment {begun}, not in {env}")
        env = specification.task.build(named=True)
    done = 0
    if checkpoint.find(directory.checkpoints):
        found = open_run(path)
        done = stages_done(specification, newest(directory)[0])
        if found.finished:
            _write_model(found, directory)
            return found
    try:
        check_precision(specification.options.precision)
    except SpecificationError as error:
        raise SpecificationError(
            f"{path} was begun with precision {specification.options.precision}, and goes on "
            "only with it: "
            f"{error}"
        ) from None
    upstream = None
    if (directory.path / UPSTREAM_DIRECTORY / "run.json").is_file():
        upstream = open_run(directory.path / UPSTREAM_DIRECTORY)
    reward = choose_rewards(reward)[1]
    judge = open_function(judge) if isinstance(judge, str) else judge
    task = None
    if process is not None:
        # What the method was told of it is known; what there is to act in was not.
        known = open_problem(specification, directory.path).process or FiniteTask.of(process)
        task = dataclasses.replace(known, process=FiniteTask.of(process).process)
    given = _opened(specification, Given(data, env, task, None, reward, judge))
    return _carry_out(
        specification,
        plan(specification, directory.path, given, done=done),
        directory,
        upstream,
        given,
        progress,
    )


def _opened(specification: Specification, given: Given) -> Given:
    """With the model, and what judges, as the specification says. Raises as `resume` does."""
    reward, model = given.reward, given.model
    chosen = specification.judge
    if chosen is not None and chosen.kind == "object" and given.judge is None:
        raise RunError(
            f"the judge '{chosen.name}' is Python code, which a run's directory does not get to "
            "name: give it again (--judge, or judge=… in Python)"
        )
    if specification.model is None:
        return given
    if model is None:
        model = specification.model.open(specification.options)
    if specification.rewards:
        reward = open_rewards(specification.rewards, reward, model.decoder.vocabulary)
    return given._replace(model=model, reward=reward)


def save_run(finished: Run, path: Path) -> None:
    """Writes what is needed to build on `finished` into a new directory at `path`."""

    def fill(temporary: Path) -> None:
        specification = finished.specification
        stage = len(specification.updates_before)
        position = Position(stage, UPSTREAM, updates_of(specification))
        parts = {"method": checkpoint.flatten(finished.state)}
        checkpoint.save(temporary / "checkpoints", position, parts)
        if finished.path is not None:
            for name in ("metrics.jsonl", "evaluations.jsonl"):
                if (finished.path / name).is_file():
                    shutil.copy(finished.path / name, temporary / name)
            if (finished.path / UPSTREAM_DIRECTORY).is_dir():
                shutil.copytree(finished.path / UPSTREAM_DIRECTORY, temporary / UPSTREAM_DIRECTORY)

    RunDirectory.create(path, finished.specification.to_json(), fill)


def _carry_out(
    specification: Specification,
    planned: Plan,
    directory: RunDirectory | None,
    upstream: Run | None,
    given: Given,
    progress: bool | None,
) -> Run:
    evaluate = _evaluation(specification, planned)
    earlier: Any = None if upstream is None else {UPSTREAM: upstream.outcome}
    trackers, name = [], specification.options.track
    if name is not None and directory is not None:
        trackers = [tracker_class(name).open(directory.path)]
    try:
        with multiplying(specification.options.precision):
            result = run(
                planned.stages,
                planned.problem,
                seeds=specification.seeds,
                seed=specification.options.seed,
                directory=directory,
                evaluate=evaluate,
                evaluations=specification.options.evaluations,
                keep_best=specification.options.keep_best,
                patience=specification.options.patience,
                trackers=trackers,
                progress=progress,
                layout=layout_of(specification.options.parallel),
                earlier=earlier,
            )
    except KeyboardInterrupt as stop:
        if directory is not None:
            stop.add_note(f"continue with `headwater resume {directory.path}`")
        raise
    outcome = result.outcomes[planned.stages[-1].name]
    last_log = given.later[-1] if given.later else given.data
    done = Run(
        specification,
        outcome.method,
        outcome.state,
        planned.problem,
        result.metrics,
        result.evaluations,
        None if directory is None else directory.path,
        upstream=upstream,
        process=planned.process,
        base=planned.model,
        tokens_per_update=planned.fed.tokens,
        log=last_log if isinstance(last_log, Dataset) else None,
    )
    _write_model(done, directory)
    return done


def _evaluation(specification: Specification, planned: Plan) -> Evaluate | None:
    """What judges the policies or models while they learn, if anything does."""
    task, process, held_out = planned.task, planned.process, planned.fed.held_out
    options = specification.options
    if isinstance(task, AbstractBandit):
        return ExactReward(task) if task.stationary else None
    if isinstance(task, AbstractBlackBox):
        return ArchiveCoverage() if planned.keeps_archive else ExactValue(task)
    if task is not None:

        def evaluate(method, states, key) -> np.ndarray:
            # As whoever evaluates or exports the run later: what was learned is not rounded.
            with multiplying("default"):
                return evaluate_returns(method, states, task, episodes=options.episodes, key=key)

        return evaluate
    if process is not None and isinstance(process.process, FiniteProcess):
        return ExactReturn(process.process)
    if held_out is not None:
        temperature = 1.0 if options.temperature is None else options.temperature
        return HeldOutScores(
            held_out, planned.problem, new_tokens=options.new_tokens, temperature=temperature
        )
    return None


def _write_model(done: Run, directory: RunDirectory | None) -> None:
    """Writes what a language model of the first seed became, where other libraries load it.

    What they have no form for stays in the run alone, which is said on standard error.
    """
    if directory is None:
        return
    if isinstance(done.method, AbstractCompletionScorer):
        _write_scorer(done, directory.path / MODEL_DIRECTORY)
    if not isinstance(done.method, AbstractTokenPolicy):
        return
    network, place = done.networks[0], directory.path / ADAPTERS_DIRECTORY
    if isinstance(network, Adapted) and not place.is_dir():
        chosen = done.specification.model
        assert chosen is not None
        family, networks = family_named(chosen.path), [network]
        if chosen.adapters is not None:
            # They were merged before learning, and the base is without them.
            own = network.without_adapters()
            networks.insert(0, read_adapters(chosen.adapters, own, family=family))
        fill_directory(
            place,
            lambda temporary: write_adapters(networks, temporary, base=chosen.path, family=family),
        )
    place = directory.path / MODEL_DIRECTORY
    if place.is_dir():
        return
    model = done.models[0]
    reason = model.unwritten(model.decoder)
    if reason is not None:
        # What was learned is in the run, and must not end as if it were lost.
        print(
            f"note: {place} was not written, since {reason}; in Python, "
            f"hw.open_run({str(directory.path)!r}).models has it",
            file=sys.stderr,
        )
        return
    fill_directory(place, lambda temporary: model.write(model.decoder, temporary))


def _write_scorer(done: Run, place: Path) -> None:
    """Writes the reward model of the first seed, if transformers has such."""
    if place.is_dir() or done.base is None:
        return
    base = done.base
    assert isinstance(done.method, AbstractCompletionScorer)
    network = done.method.rating_network(jax.tree.map(lambda leaf: leaf[0], done.state))
    assert isinstance(network, WithReward)
    if isinstance(network.network, Adapted):
        network = dataclasses.replace(network, network=network.network.merged())
    if base.has_scorer(network):
        fill_directory(place, lambda temporary: base.write_scorer(network, temporary))
