"""What a run was asked to do, as values that JSON can hold."""

import dataclasses
import json
import typing
from typing import Any, Literal

from headwater.api.specifications.choices import (
    JudgeChoice,
    MethodChoice,
    ModelChoice,
    ProcessChoice,
    TaskChoice,
)
from headwater.core import json_text
from headwater.core.catalogue import method_class
from headwater.core.errors import RunError, SpecificationError
from headwater.core.method import AbstractModelBased
from headwater.ops.products import check_name
from headwater.runs.checkpoint import Position
from headwater.runs.feeds.flow import Flow
from headwater.runs.feeds.logged import DataChoice
from headwater.runs.feeds.table import flow_of
from headwater.runs.options import Options, Recipe
from headwater.runs.recipes.online import Budget, Start


@dataclasses.dataclass(frozen=True)
class Specification:
    """Everything that determines a run.

    **Arguments:** `verb`: `train` or `adapt`; `method`; `options`: settled; `data`, `task`,
    `process`, `model`, `reward`, `judge`: what is learned from, acted or evaluated
    in, and judged by; `budget`: of acting in an environment; `start`: what a method that begins
    from another takes over; `spaces`: of a control problem, with its statistics; `score`: what
    evaluations give; `references`: random and expert return that normalise scores, and where they
    come from; `later`: logs of the tasks that follow that of `data`, in their order;
    `added_rewards`: what is added to `reward`, in the order of `options.reward_weights`.
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
    later: tuple[DataChoice, ...] = ()
    added_rewards: tuple[JudgeChoice, ...] = ()

    @property
    def rewards(self) -> tuple[JudgeChoice, ...]:
        """All rewards; none for the exact match of the file's completions."""
        return () if self.reward is None else (self.reward, *self.added_rewards)

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
        if self.later:
            assert self.options.updates is not None
            return [self.options.updates] * len(self.later)
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
            given["later"] = tuple(DataChoice(**held) for held in given.get("later", ()))
            given["added_rewards"] = tuple(
                JudgeChoice(**held) for held in given.get("added_rewards", ())
            )
            for held in (*given["later"], *given["added_rewards"]):
                _check_types(held)
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
            ("copies", 1),
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
