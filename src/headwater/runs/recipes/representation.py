"""Learning a representation of finite processes upstream, and reusing it downstream."""

from typing import Any

from headwater.core.errors import SpecificationError, nearest
from headwater.core.finite import AbstractFiniteSimulator, FiniteProblem
from headwater.core.method import AbstractFeatures, AbstractLinear, AbstractMethod
from headwater.core.records import Episodes
from headwater.runs.stage import Outcomes, Stage
from headwater.sources.episodes import FreshEpisodes, WholeLog


def upstream_stage(
    method: AbstractMethod,
    simulator: AbstractFiniteSimulator,
    *,
    updates: int,
    tasks: int | None = None,
    measure: Any = None,
    name: str = "upstream",
) -> Stage:
    """Learning features by exploring.

    **Arguments:** `method`: one that learns features; `simulator`: what to explore; for several
    tasks, stacked; `updates`: rounds of exploring; `tasks`: how many, if there are several;
    `measure`: see `Stage`.
    """
    return Stage(name, method, FreshEpisodes(simulator, tasks), updates, measure=measure)


def downstream_stage(
    method: AbstractMethod,
    experience: AbstractFiniteSimulator | Episodes,
    problem: FiniteProblem,
    *,
    updates: int = 1,
    measure: Any = None,
    upstream: str = "upstream",
    name: str = "downstream",
) -> Stage:
    """Learning a new task by linear methods, on the features that an earlier stage left frozen.

    Stages of one run share its problem, and the new task has another one: so it is given here.

    **Arguments:** `method`: `LSVIUCB` to act, or `PEVI` for a log; `experience`: what to act in, or
    the log; `problem`: the new task's; `updates`: episodes to act for; a log needs one update;
    `measure`: see `Stage`; `upstream`: the name of the earlier stage.

    Raises `SpecificationError` if the method takes no features, and, once the run comes to the
    stage, if there is no earlier stage of this name, or if it left none that fit the new task.
    """
    if not isinstance(method, AbstractLinear):
        raise SpecificationError(
            f"{type(method).__name__} takes no features of another stage: LSVIUCB and PEVI do"
        )

    def begin(outcomes: Outcomes, _: Any, key: Any) -> Any:
        return method.with_features(problem, learned_features(outcomes, upstream))

    logged = isinstance(experience, Episodes)
    source = WholeLog(experience) if logged else FreshEpisodes(experience)
    return Stage(name, method, source, updates, begin=begin, measure=measure)


def learned_features(outcomes: Outcomes, stage: str) -> Any:
    """The features that the stage of this name has learned.

    Raises `SpecificationError` if there is no such stage, or it learns none.
    """
    if stage not in outcomes:
        raise SpecificationError(nearest(stage, outcomes, "stage"))
    outcome = outcomes[stage]
    if not isinstance(outcome.method, AbstractFeatures):
        raise SpecificationError(
            f"stage '{stage}' ran {type(outcome.method).__name__}, which learns no features: "
            "REFUEL, RAFFLE and RepUCB do"
        )
    return outcome.method.features(outcome.state)
