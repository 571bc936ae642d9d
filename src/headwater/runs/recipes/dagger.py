"""Going on with an expert who corrects: DAgger."""

import math
from typing import Any

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod
from headwater.core.records import Transitions
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.runs.recipes.online import Budget
from headwater.runs.stage import Begin, Stage
from headwater.sources.experts.corrections import Corrections
from headwater.sources.mixed import mixed
from headwater.sources.replay import Replay


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

    Raises `SpecificationError` if the task knows no expert, the method does not clone, or no whole
    round fits into the steps.
    """
    check_clones(method)
    if not isinstance(task, AbstractEnvironment):
        raise SpecificationError(
            f"{task.name} does not say what an expert would do: DAgger needs a task of Headwater's "
            "own, or one in JAX, whose class is derived from AbstractExpert"
        )
    if budget.updates < 1:
        raise SpecificationError(
            f"{budget.steps} environment steps hold no round of {budget.block}: allow more steps"
        )
    updates_per_draw = budget.block * budget.updates_per_step
    rows = updates_per_draw * budget.rows
    logged = 0
    if data is not None:
        logged = min(max(math.floor(logged_share * rows + 0.5), 1), max(rows - 1, 1))
    source: Any = Corrections(
        task, budget.capacity or budget.steps, rows - logged, budget.block, copies
    )
    if data is not None:
        source = mixed([Replay(data, logged), source])
    return Stage(name, method, source, budget.updates, updates_per_draw, begin)
