"""Going on with an expert who corrects: DAgger."""

import dataclasses
from typing import Any

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod
from headwater.core.records import Transitions
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.runs.recipes.online import Budget, online_stage
from headwater.runs.stage import Begin, Stage
from headwater.sources.experts.corrections import Corrections
from headwater.sources.mixed import Mixed


def check_clones(method: AbstractMethod) -> None:
    """Raises `SpecificationError` if `method` learns from more than what was seen and done."""
    if method.info.rewards:
        raise SpecificationError(
            f"{type(method).__name__} learns from rewards, which are those of what was done and "
            "not of what the expert says: use BC, or another recipe than 'dagger'"
        )


def dagger_stage(
    method: AbstractMethod,
    task: AbstractEnvironment | AbstractHostTask,
    budget: Budget,
    *,
    name: str = "online",
    data: Transitions | None = None,
    logged_share: float = 0.5,
    begin: Begin | None = None,
    copies: int = 1,
) -> Stage:
    """Acting in `task`, and cloning what its expert would have done there: DAgger.

    `budget.block` steps are one round, after which the policy learns from the corrections of all
    rounds so far.

    **Arguments:** `task`: knows an expert; `data`: demonstrations of which a part of every batch is
    drawn, if given; `logged_share`: how large a part; `begin`: see `Stage`; `copies`: of the task.

    Raises `SpecificationError` if the task knows no expert, the method does not clone, the budget
    holds steps of warm-up, or no whole round fits into its steps.
    """
    check_clones(method)
    if not isinstance(task, AbstractEnvironment):
        raise SpecificationError(
            f"{task.name} does not say what an expert would do: DAgger needs a task of Headwater's "
            "own, or one in JAX, whose class is derived from AbstractExpert"
        )
    if budget.random_steps or budget.warm_up_steps:
        raise SpecificationError(
            "random_steps and warm_up_steps cannot take effect: with the recipe 'dagger' the "
            "policy acts, and is corrected, from the first step on; leave them out"
        )
    if budget.updates < 1:
        raise SpecificationError(
            f"{budget.steps} environment steps hold no round of {budget.block}: allow more steps"
        )
    stage = online_stage(
        method, task, budget, name=name, data=data, logged_share=logged_share, begin=begin
    )
    return dataclasses.replace(stage, source=_corrected(stage.source, copies))


def _corrected(source: Any, copies: int) -> Corrections | Mixed:
    """`source`, whose part that acts notes what the expert would have done."""
    parts: tuple[Any, ...] = source.sources if isinstance(source, Mixed) else (source,)
    *log, acting = parts
    sizes = acting.capacity, acting.batch_size, acting.steps_per_draw
    corrections = Corrections(acting.environment, *sizes, copies)
    return Mixed((*log, corrections)) if log else corrections
