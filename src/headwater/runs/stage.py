"""A stage: one method fed by one source for some number of updates."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, Agent, Metrics
from headwater.core.source import AbstractHostSource, AbstractSource


class Outcome(eqx.Module):
    """What a stage leaves behind: its method and the state learned, for one seed or for all."""

    method: AbstractMethod
    state: Any


Outcomes = dict[str, Outcome]
"""Outcomes of the stages so far, by stage name."""

Measure = Callable[[Agent], Metrics]
"""What is measured of the agent before each update, in the compiled loop; logged like a metric."""

Begin = Callable[[Outcomes, Any, PRNGKeyArray], Any]
"""How a stage starts from earlier ones: `(outcomes, problem, key)` of one seed to a state."""


class Stage(eqx.Module):
    """One method fed by one source.

    **Arguments:** `name`: unique among the stages of a run; `method`; `source`; `updates`: how
    many, a multiple of `updates_per_draw`; `updates_per_draw`: into how many equal pieces a drawn
    batch is split, one update each; `begin`: how the state starts from what earlier stages learned,
    if not from `method.init`; `measure`: what else to log (exact regret, say), from the agent as
    it was when the data was drawn.
    """

    name: str = eqx.field(static=True)
    method: AbstractMethod
    source: AbstractSource | AbstractHostSource
    updates: int = eqx.field(static=True)
    updates_per_draw: int = eqx.field(static=True, default=1)
    begin: Begin | None = eqx.field(static=True, default=None)
    measure: Measure | None = None

    def __check_init__(self):
        if self.updates < 0 or self.updates_per_draw < 1 or self.updates % self.updates_per_draw:
            raise SpecificationError(
                f"stage '{self.name}': updates={self.updates} must be a multiple of "
                f"updates_per_draw={self.updates_per_draw}, and neither negative"
            )


def carry_on(upstream: str) -> Begin:
    """A `Stage.begin` that takes over the state of the stage called `upstream` as it is."""
    return lambda outcomes, problem, key: outcomes[upstream].state
