"""Features learned from demonstrations of many tasks, and a new task learned on them."""

from typing import Any

from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractEncoding, AbstractMethod, AbstractWarmStart, Agent
from headwater.core.source import AbstractSource
from headwater.runs.stage import Outcomes, Stage

PRETRAINING = "pretraining"
"""The stage in which features are learned."""


def imitation_stages(
    pretraining: AbstractMethod,
    many: AbstractSource,
    cloning: AbstractMethod,
    few: AbstractSource,
    *,
    pretraining_updates: int,
    updates: int,
) -> tuple[Stage, Stage]:
    """Features from demonstrations of many tasks, then a policy from a few of one task.

    **Arguments:** `pretraining`: learns features (`InverseDynamicsPretraining`) from `many`, where
    demonstrations of all tasks are drawn from; `cloning`: begins with them (`EncodedBC`) and learns
    from `few`; `pretraining_updates`, `updates`: of the two.

    Raises `SpecificationError` if the first learns no features, or the second takes none.
    """
    if not isinstance(pretraining, AbstractEncoding):
        raise SpecificationError(
            f"{type(pretraining).__name__} learns no features of observations: "
            "InverseDynamicsPretraining does"
        )
    if not isinstance(cloning, AbstractWarmStart):
        raise SpecificationError(
            f"{type(cloning).__name__} cannot begin with features: EncodedBC does"
        )

    def begin(outcomes: Outcomes, problem: Any, key: PRNGKeyArray) -> Any:
        before = outcomes[PRETRAINING]
        state = cloning.warm_start(Agent(before.method, before.state), problem, key=key)
        if state is None:
            raise SpecificationError(
                f"{type(cloning).__name__} cannot begin with features: EncodedBC does"
            )
        return state

    return (
        Stage(PRETRAINING, pretraining, many, pretraining_updates, evaluated=False),
        Stage("cloning", cloning, few, updates, begin=begin),
    )
