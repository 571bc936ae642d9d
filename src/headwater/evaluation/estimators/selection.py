"""Which of several policies to deploy, judged from the same log."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from headwater.evaluation.estimators.bootstrap import (
    confidence_above_zero,
    episode_interval,
    probability_best,
)
from headwater.evaluation.estimators.importance import WITH_MODEL, Judged

BEHAVIOUR = "the behaviour"
_WITH_NETWORK = ("fqe", "drl", *WITH_MODEL)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A policy, and how it compares with the one that logged.

    **Arguments:** `name`; `value`, `low`, `high`: discounted return, with its interval;
    `advantage`, `advantage_low`, `advantage_high`: over the behaviour on the same episodes, zero
    for that one; `probability_best`: how often it is the best over the same resampled episodes;
    `confidence_better`: with what confidence it is better than the behaviour, however many
    candidates there are; `refused`: why it has no value, `None` if it has one. What is refused has
    none of these numbers.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    advantage: float | None = None
    advantage_low: float | None = None
    advantage_high: float | None = None
    probability_best: float | None = None
    confidence_better: float | None = None
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which policy to deploy.

    **Arguments:** `candidates`: the policies in the order in which they were given, and last the
    behaviour; `deploy`: name of the one, `None` if none is shown to be better than the behaviour;
    `estimator`, `level`: that it was judged by; `episodes`: of the log.
    """

    candidates: list[Candidate]
    deploy: str | None
    estimator: str
    level: float
    episodes: int

    @property
    def sentence(self) -> str:
        """What to do, in words."""
        judged = [c for c in self.candidates[:-1] if c.refused is None]
        if not judged:
            return "none can be judged from this log: judge policies nearer to it, or log more"
        best = max(judged, key=lambda candidate: candidate.probability_best or 0.0)
        if self.deploy is None:
            return (
                f"none is shown to be better than the behaviour: the confidence that {best.name}, "
                f"the likeliest best, is so is {best.confidence_better:.2f}, and {self.level:g} is "
                "asked for"
            )
        return (
            f"deploy {best.name}: the best with probability {best.probability_best:.2f}, and "
            f"better than the behaviour with confidence {best.confidence_better:.2f}"
        ) + self._overconfidence

    @property
    def _overconfidence(self) -> str:
        """What resampling episodes leaves out."""
        if self.estimator not in _WITH_NETWORK:
            return ""
        return (
            "; both are too sure, as errors of the network that was fitted to the rows that judge "
            "are left out: take a small advantage for none, or choose by mis"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {**dataclasses.asdict(self), "sentence": self.sentence}


def select_policy(
    policies: Mapping[str, Judged | str],
    behaviour: Judged,
    *,
    estimator: str,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Selection:
    """Compares policies on the same resampled episodes of the log.

    The likeliest best is deployed if it is better than the behaviour with confidence `level`.

    **Arguments:** `policies`: what is known of each by its name, or why nothing is; `behaviour`:
    the same of the policy that logged; `estimator`: what they were judged by; `level`: of intervals
    and of the decision; `resamples`; `seed`.
    """
    known = {name: found for name, found in policies.items() if not isinstance(found, str)}
    rows = np.stack([*(found.influence for found in known.values()), behaviour.influence])
    best = probability_best(rows, resamples, seed)
    over = rows[:-1] - rows[-1]
    sure = confidence_above_zero(over, resamples, seed) if known else np.zeros(0)

    def candidate(place: int, name: str, found: Judged) -> Candidate:
        advantage = found.influence - behaviour.influence
        low, high = episode_interval(found.influence, level, resamples, seed) or (None, None)
        above = episode_interval(advantage, level, resamples, seed) or (None, None)
        return Candidate(
            *(name, found.value, low, high, float(advantage.mean()), *above),
            probability_best=float(best[place]),
            confidence_better=float(sure[place]) if place < len(sure) else None,
        )

    made = {n: candidate(place, n, found) for place, (n, found) in enumerate(known.items())}
    own = candidate(len(known), BEHAVIOUR, behaviour)
    listed = [
        Candidate(name, refused=found) if isinstance(found, str) else made[name]
        for name, found in policies.items()
    ]
    deploy = None
    if made:
        likeliest = max(made.values(), key=lambda c: c.probability_best or 0.0)
        if (likeliest.confidence_better or 0.0) >= level:
            deploy = likeliest.name
    return Selection([*listed, own], deploy, estimator, level, int(rows.shape[1]))
