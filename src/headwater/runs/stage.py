"""A stage: one method fed by one source for some number of updates."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, Agent, Metrics
from headwater.core.source import AbstractHostSource, AbstractSource
from headwater.sources.whole_log import WithWholeLog


class Outcome(eqx.Module):
    """What a stage leaves behind: its method and the state learned, for one seed or for all."""

    method: AbstractMethod
    state: Any


Outcomes = dict[str, Outcome]
"""Outcomes of the stages so far, by stage name."""

Measure = Callable[[Agent, Any], Metrics]
"""What is measured of the agent before each update, and of the data of that update, in the compiled
loop; logged like a metric."""

Source = AbstractSource | AbstractHostSource

Begin = Callable[[Outcomes, Any, PRNGKeyArray], Any]
"""How a stage starts from earlier ones: `(outcomes, problem, key)` of one seed to a state."""


class Stage(eqx.Module):
    """One method fed by one source.

    **Arguments:** `name`: unique among the stages of a run; `method`; `source`; `updates`: how
    many, a multiple of `updates_per_draw`; `updates_per_draw`: into how many equal pieces a drawn
    batch is split, one update each; `begin`: how the state starts from what earlier stages learned,
    if not from `method.init`; `measure`: what else to log (exact regret, say), from the agent
    before each update and the data of that update; `evaluated`: whether a run that evaluates does
    so in this stage. Lists of sources and of measures have one for each seed of the run.
    """

    name: str = eqx.field(static=True)
    method: AbstractMethod
    source: Source | Sequence[Source]
    updates: int = eqx.field(static=True)
    updates_per_draw: int = eqx.field(static=True, default=1)
    # Not static: what a stage begins with may be computed from arrays that it holds.
    begin: Begin | None = None
    measure: Measure | Sequence[Measure] | None = None
    evaluated: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.updates < 0 or self.updates_per_draw < 1 or self.updates % self.updates_per_draw:
            raise SpecificationError(
                f"stage '{self.name}': updates={self.updates} must be a multiple of "
                f"updates_per_draw={self.updates_per_draw}, and neither negative"
            )
        sources = self.source if isinstance(self.source, (list, tuple)) else [self.source]
        if self.updates_per_draw > 1 and any(isinstance(s, WithWholeLog) for s in sources):
            raise SpecificationError(
                f"stage '{self.name}': a draw that comes with the whole log serves one update, but "
                f"updates_per_draw is {self.updates_per_draw}: leave it out"
            )


def continue_from(upstream: str) -> Begin:
    """A `Stage.begin` that takes over the state of the stage called `upstream` as it is."""
    return lambda outcomes, problem, key: outcomes[upstream].state
