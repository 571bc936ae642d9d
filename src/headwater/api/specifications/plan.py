"""The stages, problem and data that a specification amounts to."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from headwater.api.data.notes import check_actions, check_rewards
from headwater.api.specifications.choices import ARMS_FILE, PROCESS_FILE, SPACE_FILE
from headwater.api.specifications.specification import Specification
from headwater.core import json_text
from headwater.core.catalogue import learns_from
from headwater.core.errors import RunError, SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractArchiving, AbstractMethod, AbstractProposer
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.spaces import Spaces
from headwater.datasets.bandits.pulls_files import PullsFile, read_arms
from headwater.datasets.finite_files import read_process
from headwater.datasets.references import published_references
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.registry import Acted
from headwater.evaluation.bandits import regret_of_pulls
from headwater.evaluation.black_boxes.recommended import worth_of_queries
from headwater.evaluation.exact import best_return, regret_of, returns_of
from headwater.runs.feeds.flow import Fed, Inputs
from headwater.runs.feeds.language import token_problem
from headwater.runs.feeds.logged import Logged
from headwater.runs.feeds.table import feed
from headwater.runs.recipes import online as recipes
from headwater.runs.recipes.online import Start
from headwater.runs.stage import Stage, continue_from
from headwater.texts.models import LanguageModel

UPSTREAM = "offline"
"""The stage that a run adapts."""


class Given(NamedTuple):
    """What the caller has already, as objects."""

    data: Any = None
    task: Acted | None = None
    process: FiniteTask | None = None
    model: LanguageModel | None = None
    reward: Any = None
    judge: Any = None
    later: tuple[Any, ...] = ()


class Plan(NamedTuple):
    """What the loop needs.

    **Arguments:** `fed`: the stage and its problem; `references`: see `Specification`; `task`,
    `process`: evaluated in, if any; `before`: the stages before it, if there are any.
    """

    fed: Fed
    references: list[Any] | None
    task: Acted | None
    process: FiniteTask | None
    model: LanguageModel | None
    before: tuple[Stage, ...] = ()

    @property
    def stages(self) -> list[Stage]:
        """The stages of the run."""
        return [*self.before, self.fed.stage]

    @property
    def problem(self) -> Any:
        """What the method is initialised for."""
        return self.fed.problem

    @property
    def keeps_archive(self) -> bool:
        """Whether what is learned is an archive of solutions."""
        return isinstance(self.fed.stage.method, AbstractArchiving)

    @property
    def score(self) -> str | None:
        """What evaluations give, or `None` if nothing is evaluated."""
        if isinstance(self.task, AbstractBandit):
            return "reward" if self.task.stationary else None
        if isinstance(self.task, AbstractBlackBox):
            return "coverage" if self.keeps_archive else "value"
        if self.task is not None:
            return "return"
        if self.process is not None:
            return "return" if isinstance(self.process.process, FiniteProcess) else None
        if self.fed.held_out is None:
            return None
        return self.fed.held_out.score


def plan(
    specification: Specification,
    directory: Path | None = None,
    given: Given | None = None,
    *,
    done: int = 0,
) -> Plan:
    """The stages of a run.

    **Arguments:** `directory`: of the run, which relative paths are relative to; `given`: what the
    caller has already; `done`: how many stages are complete, whose data is not looked for. Raises
    `DataError` or `SpecificationError` for what does not fit together.
    """
    given = given or Given()
    method = specification.method.build()
    kind = specification.flow.kind
    task, process, model, data = given.task, given.process, given.model, given.data
    if task is None and specification.task is not None:
        task = specification.task.build()
    if process is None and specification.process is not None:
        process = specification.process.build(specification.options, directory)
    if model is None and specification.model is not None:
        model = specification.model.open(specification.options)
    mixes = specification.recipe is None or specification.recipe in recipes.WITH_LOG
    later: tuple[Logged, ...] = ()
    if kind == "control":
        if specification.data is not None and not mixes and done:
            data = None
        elif specification.data is not None:
            data = Logged(specification.data, specification.options, directory, data)
            check_rewards(method, data.data, data.metadata)
            check_actions(method, data.action_confidence, data.metadata)
            later = _later(specification, method, directory, given.later)
        elif task is None:
            raise SpecificationError("there is nothing to learn from: give data or an environment")
    elif data is None and specification.data is not None:
        data = specification.data.place(directory)
        if data is None:
            raise RunError("this run's data was held in memory and is not known any more")
        specification.data.check_unchanged(data)
        if kind == "bandits":
            data = PullsFile(data, specification.data.options.get("columns"))
    fits: tuple[Stage, ...] = ()
    if specification.fits_critics:
        assert specification.start is not None
        first = recipes.fit_stage(method, specification.start, UPSTREAM)
        if isinstance(data, Logged):
            drawn = data.source(first.method, specification.start.fit_rows)
            first = dataclasses.replace(first, source=drawn)
        fits = (first,)
    inputs = Inputs(
        data if mixes else None, task, process, model, given.reward, given.judge,
        specification.budget,
        begin_of(specification, method),
        later,
    )  # fmt: skip
    fed = feed(method, inputs, specification.options)
    references = None
    if isinstance(task, AbstractBandit) and specification.flow.acts:
        fed = fed._replace(stage=dataclasses.replace(fed.stage, measure=regret_of_pulls))
    if isinstance(task, AbstractBlackBox) and isinstance(method, AbstractProposer):
        fed = fed._replace(stage=dataclasses.replace(fed.stage, measure=worth_of_queries))
    if kind == "control":
        # What was adapted may act in another task than that of the log.
        logged = data if isinstance(data, Logged) and specification.verb == "train" else None
        # The policy that there is in the end acts in the last task.
        references = _references(later[-1] if logged is not None and later else logged, task)
    elif process is not None and isinstance(process.process, FiniteProcess):
        # Against the best of all policies, which is not what a method within budgets seeks.
        if specification.flow.acts and process.problem.budgets is None:
            stage = dataclasses.replace(fed.stage, measure=regret_of(process.process))
            fed = fed._replace(stage=stage)
        references = _exact_references(process.process)
    return Plan(fed, references, task, process, model, fits or fed.before)


def _later(
    specification: Specification, method: AbstractMethod, directory: Path | None, given: tuple
) -> tuple[Logged, ...]:
    """The logs of the tasks behind the first."""
    found = []
    for number, choice in enumerate(specification.later):
        data = given[number] if given else None
        logged = Logged(choice, specification.options, directory, data)
        check_rewards(method, logged.data, logged.metadata)
        check_actions(method, logged.action_confidence, logged.metadata)
        found.append(logged)
    return tuple(found)


class Opened(NamedTuple):
    """What a run's method began with, and what that is of."""

    problem: Any
    process: FiniteTask | None = None
    model: LanguageModel | None = None


def open_problem(specification: Specification, directory: Path) -> Opened:
    """What the method of the run in `directory` was initialised for.

    Neither its data nor its task is needed. Raises `RunError` if it is not known.
    """
    method = specification.method.build()
    if specification.model is not None:
        model = specification.model.open(specification.options)
        return Opened(token_problem(model, specification.options), model=model)
    if specification.flow.kind == "finite":
        if not (directory / PROCESS_FILE).is_file():
            raise RunError(f"{directory} has no {PROCESS_FILE}: restore it, or begin a new run")
        task = read_process(directory / PROCESS_FILE)
        problem = task.problem_for(learns_from(type(method))[0], type(method).__name__)
        return Opened(problem, process=task)
    if specification.flow.kind == "bandits":
        return Opened(read_arms(directory / ARMS_FILE))
    if specification.flow.kind == "black boxes":
        return Opened(_read_space(directory / SPACE_FILE, learns_from(type(method))[0]))
    if specification.spaces is None:
        raise RunError(
            f"{directory} is not a run that can be opened: it was made by another command"
        )
    try:
        return Opened(Spaces.from_json(specification.spaces))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{directory}/run.json: the spaces are incomplete ({error})") from None


def _read_space(path: Path, kind: type) -> SearchSpace | MeasuredSpace:
    space = MeasuredSpace if kind is MeasuredSpace else SearchSpace
    try:
        return space.from_json(json_text.parse(path.read_bytes()))
    except (OSError, KeyError, TypeError, ValueError, SpecificationError) as error:
        raise RunError(f"{path} cannot be read ({error}): restore it, or begin a new run") from None


def begin_of(specification: Specification, method: AbstractMethod, *, fitted: bool = True) -> Any:
    """How a run starts from the one that it adapts: a `Stage.begin`, or `None`.

    **Arguments:** `fitted`: there is the outcome of the stage that fits critics, if there is such a
    stage; without it, critics are as they begin.
    """
    if specification.recipe in recipes.WARM_STARTS:
        start = specification.start or Start()
        return recipes.warm_start(
            method,
            UPSTREAM,
            keep_temperature=start.keep_temperature,
            fresh_critics=specification.fits_critics,
            fitted=recipes.CRITICS_FIT if specification.fits_critics and fitted else None,
        )
    if specification.recipe in ("continue", "dagger"):
        return continue_from(UPSTREAM)
    return None


def _references(logged: Logged | None, task: Acted | None) -> list[Any] | None:
    """Random and expert return and where they come from."""
    if logged is not None and logged.data is not None:
        known = logged.data.references()
        if known is not None:
            return [known.random, known.expert, known.source, known.indicative]
    if task is not None:
        known = published_references(task.name)
        if known is not None:
            return [known.random, known.expert, known.source, known.indicative]
        if task.reference_returns is not None and not _altered(task):
            return [*task.reference_returns, f"measured in {task.name}", False]
    return None


def _altered(task: Acted) -> bool:
    """Whether options make this another task than the one that its references were measured in."""
    if not isinstance(task, AbstractEnvironment) or "reference_returns" in vars(task):
        return False
    return vars(task) != vars(type(task)())  # pyright: ignore[reportCallIssue]


def _exact_references(process: FiniteProcess) -> list[Any] | None:
    """Of a uniform and of an optimal policy; `None` for several tasks, whose differ."""
    if process.reward.ndim > 3:
        return None
    uniform = jnp.full(process.reward.shape, 1.0 / process.actions)
    lowest = float(returns_of(process, uniform))
    highest = float(best_return(process))
    return [lowest, highest, "exact", False] if highest > lowest else None
