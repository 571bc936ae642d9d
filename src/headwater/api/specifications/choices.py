"""What a run can be asked to use: a method, a task, a process, a model, a judge."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from headwater.core.catalogue import build_method, settings
from headwater.core.errors import DataError, RunError
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractMethod
from headwater.datasets.finite_files import read_process
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox, BlackBox
from headwater.environments.black_boxes.compression import Compression
from headwater.environments.black_boxes.measured_box import MeasuredBox
from headwater.environments.catalogue import environment_class, environment_names
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.processes import make_process
from headwater.environments.registry import Acted, make, make_recorded
from headwater.runs.options import Options
from headwater.texts.models import (
    LanguageModel,
    load_language_model,
    model_and_adapters,
    model_fingerprint,
)

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
        if isinstance(task, BlackBox | MeasuredBox | Compression):
            return cls(task.name, {}, own=True)
        if isinstance(task, AbstractEnvironment | AbstractBandit | AbstractBlackBox):
            options = {name: value for name, value in vars(task).items() if value is not None}
            if isinstance(task, AbstractEnvironment) and not _can_be_named(task, options):
                return cls(task.name, {}, own=True)
            return cls(task.name, options)
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


def _can_be_named(task: AbstractEnvironment, options: dict[str, Any]) -> bool:
    """Whether an environment is all that its name and numbers say.

    It is not if it holds other objects, or if a class of the user's has the name of one of ours.
    """
    numbers = all(isinstance(value, bool | int | float) for value in options.values())
    named = task.name in environment_names()
    return numbers and named and type(task) is environment_class(task.name)


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
    """What judges: the run of a reward model, the data, or something that only Python can hold.

    **Arguments:** `kind`: `run` for the directory `name`, `file` for the completions in the data,
    `object` for anything else.
    """

    kind: Literal["run", "object", "file"]
    name: str
