"""What a run was asked to do, as values that JSON can hold, and how stages are built from it."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from headwater.api.data.notes import check_actions, check_rewards
from headwater.core import json_text
from headwater.core.catalogue import build_method, learns_from, method_class, settings
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import (
    AbstractArchiving,
    AbstractMethod,
    AbstractModelBased,
    AbstractProposer,
)
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.spaces import Spaces
from headwater.datasets.finite_files import read_process
from headwater.datasets.pulls_files import read_arms
from headwater.datasets.references import published_references
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox, BlackBox
from headwater.environments.black_boxes.measured_box import MeasuredBox
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.processes import make_process
from headwater.environments.registry import Acted, make, make_recorded
from headwater.evaluation.bandits import regret_of_pulls
from headwater.evaluation.black_boxes.recommended import worth_of_queries
from headwater.evaluation.exact import best_return, regret_of, returns_of
from headwater.ops.products import check_name
from headwater.runs.checkpoint import Position
from headwater.runs.feeds.flow import Fed, Flow, Inputs
from headwater.runs.feeds.language import token_problem
from headwater.runs.feeds.logged import DataChoice, Logged
from headwater.runs.feeds.table import feed, flow_of
from headwater.runs.options import Options, Recipe
from headwater.runs.recipes import online as recipes
from headwater.runs.recipes.online import Budget, Start
from headwater.runs.stage import Stage, continue_from
from headwater.texts.models import (
    LanguageModel,
    load_language_model,
    model_and_adapters,
    model_fingerprint,
)

UPSTREAM = "offline"
"""The stage that a run adapts."""
PROCESS_FILE = "process.npz"
"""Where a run's directory holds the finite process and what the method was told of it."""

ARMS_FILE = "arms.npz"
"""Where it holds what the method was told of a bandit."""
SPACE_FILE = "space.json"
"""Where it holds what the method was told of a black box."""


@dataclasses.dataclass(frozen=True)
class MethodChoice:
    """A method by name, with the hyper-parameters that it was given."""

    name: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, method: AbstractMethod) -> "MethodChoice":
        """The choice of `method` as it is."""
        return cls(type(method).__name__, settings(method))

    def build(self) -> AbstractMethod:
        """The method."""
        return build_method(self.name, self.settings)


@dataclasses.dataclass(frozen=True)
class TaskChoice:
    """A task by name, with the options that it was made with; `own`: passed as an object."""

    name: str
    options: dict[str, Any]
    own: bool = False

    @classmethod
    def of(cls, task: Acted) -> "TaskChoice":
        """The choice of `task` as it is."""
        if isinstance(task, BlackBox | MeasuredBox):
            return cls(task.name, {}, own=True)
        if isinstance(task, AbstractEnvironment | AbstractBandit | AbstractBlackBox):
            return cls(task.name, dict(vars(task)))
        options = getattr(task, "options", None)
        return cls(task.name, dict(options or ()), own=options is None)

    def same_as(self, other: "TaskChoice") -> bool:
        """Whether both are one task, options included: only then do their returns compare."""
        own_options, other_options = (
            json.dumps(c.options, sort_keys=True, default=str) for c in (self, other)
        )
        return self.name == other.name and own_options == other_options

    def build(self, *, named: bool = False) -> Acted:
        """The task. Raises `RunError` for an object of the user's, which has no name.

        **Arguments:** `named`: the user gave this name, so its module may be imported.
        """
        if self.own:
            raise RunError(
                f"the environment '{self.name}' was passed as an object: pass it again (in Python)"
            )
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in self.options.items()}
        return (make if named else make_recorded)(self.name, **options)


@dataclasses.dataclass(frozen=True)
class ProcessChoice:
    """A finite process: by name with options, in a file, or passed as an object.

    **Arguments:** `name`; `options`: of a process by name; `path`: of a file, absolute; `own`:
    passed as an object; `known`: its model is known, so that a run's directory holds all of it.
    """

    name: str
    options: dict[str, Any]
    path: str | None = None
    own: bool = False
    known: bool = True

    def build(self, options: Options, directory: Path | None) -> FiniteTask:
        """The process. Raises `RunError` for an object of the user's that is in no file.

        **Arguments:** `options`: of what methods are told; `directory`: of the run, if it has one.
        """
        if directory is not None and (directory / PROCESS_FILE).is_file():
            task = read_process(directory / PROCESS_FILE)
            if self.known or task.process is not None:
                return task
        if self.own:
            raise RunError(
                f"the process '{self.name}' was passed as an object: pass it again (in Python)"
            )
        task = make_process(self.name, **self.options) if self.path is None else None
        return (task or read_process(str(self.path))).telling(
            options.known_reward, options.budgets, options.reward_range
        )


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """The language model that a run begins with.

    **Arguments:** `path`: its directory, absolute; `fingerprint`: of the content; `adapters`: the
    directory of those that are merged into it, absolute.
    """

    path: str
    fingerprint: str | None
    adapters: str | None = None

    @classmethod
    def of(cls, directory: str | Path, adapters: str | Path | None = None) -> "ModelChoice":
        """The model in `directory`, with adapters, as it is now.

        Raises `DataError` if it cannot be read.
        """
        for given in (directory, adapters):
            if given is not None and not Path(given).expanduser().is_dir():
                what = "a model" if given is directory else "adapters"
                raise DataError(f"{given}: there is no such directory with {what}")
        place = Path(directory).expanduser().resolve()
        added = None if adapters is None else Path(adapters).expanduser().resolve()
        place, added = model_and_adapters(place, added)
        fingerprint = model_fingerprint(place, added)
        return cls(str(place.resolve()), fingerprint, None if added is None else str(added))

    def open(self, options: Options) -> LanguageModel:
        """The model, as training with these options reads it.

        Raises `DataError` if it is not what the run began with, or cannot be read.
        """
        place = Path(self.path)
        for directory in (place, self.adapters):
            if directory is not None and not Path(directory).is_dir():
                raise DataError(f"{directory}: there is no such directory with a model")
        if self.fingerprint not in (None, model_fingerprint(place, self.adapters)):
            raise DataError(
                f"{place} has changed since this run began: restore it, or begin another run"
            )
        # Steps of fine-tuning are too small for bfloat16; frozen weights can stay in it.
        stored = "float32" if options.rank == 0 else None
        return load_language_model(
            place,
            adapters=self.adapters,
            dtype=options.dtype,
            stored=stored,
            gradient_checkpointing=options.gradient_checkpointing,
            gradient_accumulation=options.gradient_accumulation,
        )


@dataclasses.dataclass(frozen=True)
class JudgeChoice:
    """What judges: the run of a reward model, or something that only Python can hold.

    **Arguments:** `kind`: `run` for the directory `name`, `object` for anything else.
    """

    kind: Literal["run", "object"]
    name: str


@dataclasses.dataclass(frozen=True)
class Specification:
    """Everything that determines a run.

    **Arguments:** `verb`: `train` or `adapt`; `method`; `options`: settled; `data`, `task`,
    `process`, `model`, `reward`, `judge`: what is learned from, acted or evaluated
    in, and judged by; `budget`: of acting in an environment; `start`: what a method that begins
    from another takes over; `spaces`: of a control problem, with its statistics; `score`: what
    evaluations give; `references`: random and expert return that normalise scores, and where they
    come from.
    """

    verb: Literal["train", "adapt"]
    method: MethodChoice
    options: Options
    data: DataChoice | None = None
    task: TaskChoice | None = None
    process: ProcessChoice | None = None
    model: ModelChoice | None = None
    reward: JudgeChoice | None = None
    judge: JudgeChoice | None = None
    budget: Budget | None = None
    start: Start | None = None
    spaces: dict[str, Any] | None = None
    score: str = "return"
    references: list[Any] | None = None

    @property
    def seeds(self) -> list[int]:
        """Which seeds."""
        return self.options.seed_list

    @property
    def recipe(self) -> Recipe | None:
        """How it goes on from an earlier run, if it adapts one."""
        return self.options.recipe

    @property
    def fits_critics(self) -> bool:
        """Whether it begins with a stage in which critics are fitted."""
        return self.start is not None and self.start.fit_updates > 0

    @property
    def updates_before(self) -> list[int]:
        """Updates of each stage before the one in which the method learns."""
        if self.fits_critics:
            assert self.start is not None
            return [self.start.fit_updates]
        if self.verb != "train" or self.budget is not None:
            return []
        # Others are not built: of a run, settings may be wrong that nobody asks for.
        if not issubclass(method_class(self.method.name), AbstractModelBased):
            return []
        method = self.method.build()
        assert isinstance(method, AbstractModelBased)
        return [method.model_updates]

    @property
    def flow(self) -> Flow:
        """How the method is fed."""
        return flow_of(method_class(self.method.name))

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def acts(self) -> bool:
        """Whether steps of an environment or a process are its cost."""
        return self.budget is not None or self.flow.acts

    @classmethod
    def from_json(cls, stored: dict[str, Any], where: str) -> "Specification":
        """From what `to_json` gave. Raises `RunError` if it is something else."""
        parts: dict[str, Any] = {
            "method": MethodChoice,
            "options": Options.of,
            "data": DataChoice,
            "task": TaskChoice,
            "process": ProcessChoice,
            "model": ModelChoice,
            "reward": JudgeChoice,
            "judge": JudgeChoice,
            "budget": Budget,
            "start": Start,
        }
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            given = {name: value for name, value in stored.items() if name in names}
            for name, part in parts.items():
                if given.get(name) is not None:
                    held = given[name]
                    given[name] = part(held) if name == "options" else part(**held)
                    _check_types(given[name])
            specification = cls(**given)
            _check_types(specification)
            if specification.options.seeds is None:
                raise ValueError("seeds")
            if specification.references is not None and not _are_references(
                specification.references
            ):
                raise ValueError("references")
            if specification.budget is not None and specification.task is None:
                raise ValueError("acting needs a task")
            _check_whole(specification)
            check_numbers(specification)
        except (TypeError, ValueError, AttributeError, KeyError, SpecificationError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RunError(
                f"{where}: this is not the specification of a run, or of one that an older "
                f"version began ({reason})"
            ) from None
        return specification


def _check_whole(specification: Specification) -> None:
    """Raises `ValueError` unless there is what the method is fed with."""
    needed = specification.flow.needs if specification.budget is None else ()
    there = {
        "data": specification.data,
        "process": specification.process,
        "model": specification.model,
        "env": specification.task,
    }
    for name in needed:
        if there[name] is None:
            raise ValueError(f"its {name} is missing")
    if (
        specification.flow.acts
        and specification.flow.kind == "control"
        and specification.budget is None
    ):
        raise ValueError("acting needs a budget")
    if specification.options.updates is None or specification.options.batch_size is None:
        raise ValueError("updates and batch size are not settled")


def _check_types(part: Any) -> None:
    """Raises `ValueError`, naming the field, if one is of another type than it is declared."""
    for name, hint in typing.get_type_hints(type(part)).items():
        if not json_text.fits(getattr(part, name), hint):
            raise ValueError(f"{name} is not of its type")


def _are_references(given: list[Any]) -> bool:
    kinds = (float, float, str, bool)
    return len(given) == len(kinds) and all(map(json_text.fits, given, kinds))


class Given(NamedTuple):
    """What the caller has already, as objects."""

    data: Any = None
    task: Acted | None = None
    process: FiniteTask | None = None
    model: LanguageModel | None = None
    reward: Any = None
    judge: Any = None


class Plan(NamedTuple):
    """What the loop needs.

    **Arguments:** `fed`: the stage and its problem; `references`: see `Specification`; `task`,
    `process`: evaluated in, if any; `first`: the stage before it, if there is one.
    """

    fed: Fed
    references: list[Any] | None
    task: Acted | None
    process: FiniteTask | None
    model: LanguageModel | None
    first: Stage | None = None

    @property
    def stages(self) -> list[Stage]:
        """The stages of the run."""
        return [self.fed.stage] if self.first is None else [self.first, self.fed.stage]

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
    if kind == "control":
        if specification.data is not None and not mixes and done:
            data = None
        elif specification.data is not None:
            data = Logged(specification.data, specification.options, directory, data)
            check_rewards(method, data.data, data.metadata)
            check_actions(method, data.action_confidence, data.metadata)
        elif task is None:
            raise SpecificationError("there is nothing to learn from: give data or an environment")
    elif data is None and specification.data is not None:
        data = specification.data.place(directory)
        if data is None:
            raise RunError("this run's data was held in memory and is not known any more")
        specification.data.check_unchanged(data)
    first = None
    if specification.fits_critics:
        assert specification.start is not None
        first = recipes.fit_stage(method, specification.start, UPSTREAM)
        if isinstance(data, Logged):
            drawn = data.source(first.method, specification.start.fit_rows)
            first = dataclasses.replace(first, source=drawn)
    inputs = Inputs(
        data if mixes else None, task, process, model, given.reward, given.judge,
        specification.budget,
        begin_of(specification, method),
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
        references = _references(logged, task)
    elif process is not None and isinstance(process.process, FiniteProcess):
        # Against the best of all policies, which is not what a method within budgets seeks.
        if specification.flow.acts and process.problem.budgets is None:
            stage = dataclasses.replace(fed.stage, measure=regret_of(process.process))
            fed = fed._replace(stage=stage)
        references = _exact_references(process.process)
    return Plan(fed, references, task, process, model, first or fed.first)


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


def check_numbers(specification: Specification) -> None:
    """Raises `SpecificationError` for a number that is out of its range, or no precision."""
    check_name(specification.options.precision)
    if specification.budget is not None:
        for name, least in (
            ("steps", 1),
            ("random_steps", 0),
            ("warm_up_steps", 0),
            ("block", 1),
            ("updates_per_step", 1),
        ):
            value = getattr(specification.budget, name)
            if value < least:
                raise SpecificationError(f"{name} = {value}: it must be at least {least}")
            if value > 2**31 - 1:
                # Steps are counted in 32 bits.
                raise SpecificationError(f"{name} = {value}: it must be at most {2**31 - 1:,}")


def updates_of(specification: Specification) -> int:
    """Updates that a run makes in its last stage, in which its method learns."""
    if specification.budget is not None:
        return specification.budget.updates
    assert specification.options.updates is not None
    return specification.options.updates


def stages_done(specification: Specification, position: Position) -> int:
    """How many stages of a run are complete, one of whose checkpoints is at `position`."""
    lengths = [*specification.updates_before, updates_of(specification)]
    return position.stage + (position.update >= lengths[position.stage])


def is_finished(specification: Specification, position: Position) -> bool:
    """Whether a run is complete, one of whose checkpoints is at `position`."""
    return stages_done(specification, position) == 1 + len(specification.updates_before)


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
    if specification.recipe == "continue":
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
