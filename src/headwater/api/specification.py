"""What a run was asked to do, as values that JSON can hold, and how stages are built from it."""

import dataclasses
import json
import math
import typing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headwater.api.data_notes import check_rewards
from headwater.core import json_text
from headwater.core.catalogue import build_method, family, learns_from, settings
from headwater.core.errors import DataError, RunError, SpecificationError, nearest
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractReturnsToGo
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.datasets import transform
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import is_column_directory, open_columns
from headwater.datasets.read import load
from headwater.datasets.references import published_references
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.registry import make, make_recorded
from headwater.methods.control.online.rlpd import RLPD
from headwater.ops.products import check_name
from headwater.runs import recipes
from headwater.runs.recipes import Budget, Task
from headwater.runs.stage import Stage, carry_on
from headwater.sources.out_of_core import OutOfCoreReplay
from headwater.sources.pooled import PooledReplay
from headwater.sources.replay import Replay
from headwater.sources.weighted import WeightedReplay

UPSTREAM = "offline"
"""The stage that a run adapts."""
WEIGHTS = ("return", "advantage")
"""How rows can be weighted: RW and AW of Hong et al. (2023)."""

_DISK_DRAWS, _DRAWN_BYTES = 32, 2**24
"""Batches that are drawn from the disk at once, if their rows take no more than so many bytes."""
_LARGE = 2**31
"""Bytes on disk from which on they are not expected to stay in the system's memory."""


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
class DataChoice:
    """Which logged experience, and how it is drawn.

    **Arguments:** `path`: absolute, or relative to the run's directory; `options`: of
    `headwater.load`; `fingerprint`: of the content before `top` is taken; `top`: only this fraction
    of the episodes, the best by return; `weights`: of `WEIGHTS`, or `None` for uniform replay;
    `temperature`: of the weights; `from_disk`: mapped instead of read into memory.
    """

    path: str | None
    options: dict[str, Any]
    fingerprint: str | None
    top: float | None = None
    weights: str | None = None
    temperature: float = 0.1
    from_disk: bool = False


@dataclasses.dataclass(frozen=True)
class TaskChoice:
    """A task by name, with the options that it was made with; `own`: passed as an object."""

    name: str
    options: dict[str, Any]
    own: bool = False

    @classmethod
    def of(cls, task: Task) -> "TaskChoice":
        """The choice of `task` as it is."""
        if isinstance(task, AbstractEnvironment):
            return cls(task.name, dict(vars(task)))
        options = getattr(task, "options", None)
        return cls(task.name, dict(options or ()), own=options is None)

    def same_as(self, other: "TaskChoice") -> bool:
        """Whether both are one task, options included: only then do their returns compare."""
        mine, theirs = (json.dumps(c.options, sort_keys=True, default=str) for c in (self, other))
        return self.name == other.name and mine == theirs

    def build(self, *, named: bool = False) -> Task:
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
class Specification:
    """Everything that determines a run.

    **Arguments:** `verb`: `train` or `adapt`; `method`; `seeds`: which; `seed`: root of all
    randomness; `evaluations`, `episodes`: how often, and over how many; `updates`: of offline
    learning; `batch_size`: rows per gradient step; `data`, `task`: what is learned from, and what
    is acted or evaluated in; `budget`: of acting, `None` for offline learning; `recipe`: how an
    earlier run is adapted; `spaces`: of the problem, with its statistics; `references`: random and
    expert return that normalise scores, and where they come from; `precision`: of the products in
    networks while it learns.
    """

    verb: str
    method: MethodChoice
    seeds: list[int]
    seed: int
    evaluations: int
    episodes: int
    batch_size: int
    updates: int | None = None
    data: DataChoice | None = None
    task: TaskChoice | None = None
    budget: Budget | None = None
    recipe: str | None = None
    spaces: dict[str, Any] | None = None
    references: list[Any] | None = None
    precision: str = "default"

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any], where: str) -> "Specification":
        """From what `to_json` gave. Raises `RunError` if it is something else."""
        parts = {"method": MethodChoice, "data": DataChoice, "task": TaskChoice, "budget": Budget}
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            given = {name: value for name, value in stored.items() if name in names}
            for name, part in parts.items():
                if given.get(name) is not None:
                    given[name] = part(**given[name])
                    _check_types(given[name])
            asked = cls(**given)
            _check_types(asked)
            if asked.references is not None and not _are_references(asked.references):
                raise ValueError("references")
            if asked.budget is None and (asked.updates is None or asked.data is None):
                raise ValueError("offline learning needs updates and data")
            if asked.budget is not None and asked.task is None:
                raise ValueError("acting needs a task")
            check_numbers(asked)
        except (TypeError, ValueError, AttributeError, SpecificationError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RunError(f"{where}: this is not the specification of a run ({reason})") from None
        return asked


def _check_types(part: Any) -> None:
    """Raises `ValueError`, naming the field, if one is of another type than it is declared."""
    for name, hint in typing.get_type_hints(type(part)).items():
        if not json_text.fits(getattr(part, name), hint):
            raise ValueError(f"{name} is not of its type")


def _are_references(given: list[Any]) -> bool:
    kinds = (float, float, str, bool)
    return len(given) == len(kinds) and all(map(json_text.fits, given, kinds))


class Plan(NamedTuple):
    """What the loop needs."""

    stages: list[Stage]
    problem: Spaces
    task: Task | None
    references: list[Any] | None


def plan(
    asked: Specification, directory: Path | None, data: Dataset | None, task: Task | None
) -> Plan:
    """The stages of a run.

    **Arguments:** `directory`: of the run, which relative paths are relative to; `data`, `task`:
    where the caller has them already. Raises `DataError` or `SpecificationError` for what does not
    fit together.
    """
    method = asked.method.build()
    if task is None and asked.task is not None:
        task = asked.task.build()
    logged = None if asked.data is None else _Logged(asked.data, directory, data)
    if logged is not None and task is not None:
        reason = logged.spaces.mismatch(task.spaces, "in the data", "in it")
        if reason is not None:
            raise SpecificationError(f"the data does not fit the environment {task.name}: {reason}")
    if logged is not None:
        check_rewards(method, logged.data, logged.metadata)
        horizon = logged.spaces.horizon or (task.spaces.horizon if task is not None else None)
        problem = dataclasses.replace(logged.spaces, horizon=horizon)
    elif task is not None:
        problem = task.spaces
    else:
        raise SpecificationError("there is nothing to learn from: give data or an environment")
    references = _references(logged, task)
    if asked.budget is None:
        assert logged is not None and asked.updates is not None
        rows = len(asked.seeds) * recipes.rows_per_update(method, asked.batch_size)
        pieces = logged.updates_per_draw(asked.updates, rows)
        source = logged.source(method, pieces * asked.batch_size)
        stages = [Stage("offline", method, source, asked.updates, pieces)]
    else:
        assert task is not None
        if logged is not None and logged.choice.weights is not None:
            raise SpecificationError(
                f"{asked.method.name} draws its log uniformly while it acts: leave out weights"
            )
        stages = [
            recipes.online_stage(
                method,
                task,
                asked.budget,
                data=None if logged is None else logged.transitions(method),
                begin=begin_of(asked, method),
            )
        ]
    return Plan(stages, problem, task, references)


class _Logged:
    """Logged experience as a specification describes it."""

    def __init__(self, choice: DataChoice, directory: Path | None, data: Dataset | None):
        self.choice = choice
        self.path: Path | None = None
        if choice.path is not None:
            self.path = Path(choice.path)
            if not self.path.is_absolute() and directory is not None:
                self.path = directory / self.path
        if choice.from_disk:
            self.data, self.columns = None, self._mapped()
            self.spaces, self.metadata = self.columns.spaces, self.columns.metadata
            return
        if data is None:
            if self.path is None:
                raise RunError("this run's data was held in memory and is not known any more")
            data = load(self.path, **choice.options)
        self._check_unchanged(data.fingerprint())
        if choice.top is not None:
            data = transform.top_episodes(data, choice.top)
        self.data = data
        self.spaces, self.metadata = data.spaces, data.metadata

    def transitions(self, method: AbstractMethod):
        """All rows, on the device."""
        if self.data is None:
            raise SpecificationError(
                "data that stays on disk cannot be mixed with an environment's: leave out from_disk"
            )
        discount = settings(method).get("discount", 0.99)
        return jax.tree.map(jnp.asarray, self.data.transitions(discount))

    def updates_per_draw(self, updates: int, rows: int) -> int:
        """How many updates of `rows` each share a draw: it pays for the way from the disk."""
        if self.data is not None:
            return 1
        draws = _DISK_DRAWS
        while draws > 1 and draws * rows * self._row_bytes > _DRAWN_BYTES:
            draws //= 2
        return math.gcd(updates, draws)

    def source(self, method: AbstractMethod, batch_size: int):
        """Where an offline method's batches come from."""
        rows = recipes.rows_per_update(method, batch_size)
        if self.data is None:
            assert self.path is not None
            # Only Cal-QL asks for the logged returns, which cost a pass over the data.
            discount = method.discount if isinstance(method, AbstractReturnsToGo) else None
            replay = (
                PooledReplay if self._row_bytes * self.columns.size > _LARGE else OutOfCoreReplay
            )
            return replay(str(self.path), rows, discount)
        if self.choice.weights is None:
            return Replay(self.transitions(method), rows)
        weigh = {
            "return": transform.return_weights,
            "advantage": transform.advantage_weights,
        }
        if self.choice.weights not in weigh:
            raise SpecificationError(nearest(self.choice.weights, WEIGHTS, "kind of weights"))
        weights = weigh[self.choice.weights](self.data, self.choice.temperature)
        return WeightedReplay(self.transitions(method), np.asarray(weights), rows)

    @property
    def _row_bytes(self) -> int:
        columns = self.columns.columns.values()
        return sum(column.nbytes for column in columns) // self.columns.size

    def _mapped(self):
        if self.path is None or not is_column_directory(self.path):
            raise SpecificationError(
                f"{self.path or 'the data'}: only a column directory can stay on disk; make one "
                "with `headwater data convert FILE DIRECTORY`"
            )
        if self.choice.top is not None or self.choice.weights is not None:
            raise SpecificationError(
                "data that stays on disk is drawn uniformly: leave out top and weights"
            )
        columns = open_columns(self.path)
        self._check_unchanged(columns.fingerprint())
        return columns

    def _check_unchanged(self, fingerprint: str) -> None:
        if self.choice.fingerprint not in (None, fingerprint):
            raise DataError(
                f"{self.path or 'the data'} has changed since this run began: restore it, or begin "
                "another run"
            )


MOST_SEEDS = 10_000
"""More than this is a slip, which would fill the memory before anything is said."""

_LARGEST_SEED = 2**32 - 1
_LARGEST_COUNT = 2**31 - 1
"""Updates and steps are counted in 32 bits."""
_LARGEST_BATCH = 10_000_000


def check_seed(seed: int) -> None:
    """Raises `SpecificationError` for a seed that no generator takes."""
    if seed < 0:
        raise SpecificationError(f"seed = {seed}: it must be at least 0")
    if seed > _LARGEST_SEED:
        raise SpecificationError(f"seed = {seed}: it must lie between 0 and {_LARGEST_SEED}")


def check_numbers(asked: Specification) -> None:
    """Raises `SpecificationError` for a number that is out of its range, or no precision."""
    check_name(asked.precision)
    least = {
        "batch_size": (asked.batch_size, 1),
        "evaluations": (asked.evaluations, 1),
        "episodes": (asked.episodes, 1),
        "seed": (asked.seed, 0),
    }
    if asked.updates is not None:
        least["updates"] = (asked.updates, 1)
    if asked.budget is not None:
        least["steps"] = (asked.budget.steps, 1)
        least["random_steps"] = (asked.budget.random_steps, 0)
        least["warm_up_steps"] = (asked.budget.warm_up_steps, 0)
        least["block"] = (asked.budget.block, 1)
        least["updates_per_step"] = (asked.budget.updates_per_step, 1)
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise SpecificationError(f"{name} = {value}: it must be at least {lowest}")
    for name, (value, _) in least.items():
        most = _LARGEST_BATCH if name == "batch_size" else _LARGEST_COUNT
        if name != "seed" and value > most:
            raise SpecificationError(f"{name} = {value}: it must be at most {most:,}")
    for seed in (asked.seed, *asked.seeds):
        check_seed(seed)
    if asked.data is not None and not 0.0 < asked.data.temperature < math.inf:
        raise SpecificationError(
            f"temperature = {asked.data.temperature} must be positive, and finite"
        )


def updates_of(asked: Specification) -> int:
    """Updates that a run makes in all."""
    if asked.budget is not None:
        return asked.budget.updates
    assert asked.updates is not None
    return asked.updates


def begin_of(asked: Specification, method: AbstractMethod) -> Any:
    """How a run starts from the one that it adapts: a `Stage.begin`, or `None`."""
    if asked.recipe == "wsrl":
        return recipes.warm_start(method, UPSTREAM)
    if asked.recipe == "continue":
        return carry_on(UPSTREAM)
    return None


def _references(logged: _Logged | None, task: Task | None) -> list[Any] | None:
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


def _altered(task: Task) -> bool:
    """Whether options make this another task than the one that its references were measured in."""
    if not isinstance(task, AbstractEnvironment) or "reference_returns" in vars(task):
        return False
    return vars(task) != vars(type(task)())  # pyright: ignore[reportCallIssue]


def check_kind(method: AbstractMethod, has_data: bool, has_task: bool) -> None:
    """Raises `SpecificationError` unless `method` gets the experience that it learns from."""
    name, kind = type(method).__name__, family(type(method).__name__)
    problem, data = learns_from(type(method))
    if problem is FiniteProblem:
        raise SpecificationError(
            f"{name} learns finite processes, of which it sees whole episodes: use headwater.solve "
            "in Python"
        )
    if data is not Transitions:
        raise SpecificationError(f"{name} learns from {data.__name__}, not from transitions")
    if kind == "control/online":
        if not has_task:
            raise SpecificationError(f"{name} learns online: give it an environment")
        if isinstance(method, RLPD) and not has_data:
            raise SpecificationError("RLPD learns online and from a log: give it data as well")
        if has_data and not isinstance(method, RLPD):
            raise SpecificationError(
                f"{name} learns from what it does, not from a log: use RLPD for both, or train an "
                "offline method and adapt it"
            )
    elif not has_data:
        raise SpecificationError(f"{name} learns from logged experience: give it data")


def is_online(method: AbstractMethod) -> bool:
    """Whether `method` acts while it learns."""
    return family(type(method).__name__) == "control/online"
