"""Judges of agents by their episodes, and the comparisons that a ranking is made of."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from headwater.analysis.rankings.comparisons import Comparisons
from headwater.core.errors import DataError, SpecificationError


class Performance(NamedTuple):
    """An episode of an agent, as its judge sees it.

    **Arguments:** `steps`: how long it was; `shown`: whatever the judge looks at (frames, final
    state, observations), which the ranking does not read.
    """

    steps: int
    shown: object


Judge = Callable[[Performance, Performance], float]
"""Says which of two performances is better, a person, a model or a simulated judge: 1 if the first
is, 0 if the second is, and 0.5 if neither is."""


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatedJudge:
    """A judge by a score that nobody else knows, who errs, and may be taken in by length.

    **Arguments:** `score`: of a performance; `errors`: share of answers that are turned round;
    `length_weight`: by how much a step more raises its opinion, in units of the score; 0 for a fair
    judge; `random`: what its errors are drawn from.

    Raises `SpecificationError` unless `errors` is in [0, 1].
    """

    score: Callable[[Performance], float]
    errors: float
    random: np.random.Generator
    length_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.errors <= 1.0:
            raise SpecificationError(f"errors = {self.errors} is not in [0, 1]")

    def __call__(self, first: Performance, second: Performance) -> float:
        margin = self.score(first) - self.score(second)
        margin += self.length_weight * (first.steps - second.steps)
        if margin == 0.0:
            return 0.5
        return float((margin > 0.0) != (self.random.random() < self.errors))


def compare_agents(
    performances: Sequence[Sequence[Performance]],
    judge: Judge,
    comparisons: int,
    *,
    random: np.random.Generator,
) -> Comparisons:
    """Has a judge compare performances of agents, pairs and performances drawn uniformly.

    Pairs of agents come in turn, in random order and with random sides, so that all are compared
    about equally often.

    **Arguments:** `performances`: of each agent, at least one; `comparisons`: how many.

    Raises `DataError` for fewer than two agents, for one without performances, or for an answer
    that is none.
    """
    agents = len(performances)
    if agents < 2 or comparisons < 1:
        raise DataError("at least two agents and one comparison are needed for a ranking")
    for number, found in enumerate(performances):
        if not len(found):
            raise DataError(f"agent {number} has no performance: record at least one")
    pairs = [(i, j) for i in range(agents) for j in range(i)]
    rounds = -(-comparisons // len(pairs))
    order = np.concatenate([random.permutation(len(pairs)) for _ in range(rounds)])[:comparisons]
    first, second, outcome, longer = [], [], [], []
    for number in order:
        one, other = pairs[number] if random.random() < 0.5 else pairs[number][::-1]
        shown = [performances[a][random.integers(len(performances[a]))] for a in (one, other)]
        first.append(one)
        second.append(other)
        outcome.append(_answer(judge, *shown))
        longer.append(shown[0].steps - shown[1].steps)
    return Comparisons(
        np.asarray(first), np.asarray(second), np.asarray(outcome), np.asarray(longer, np.float64)
    )


class LengthCheck(NamedTuple):
    """How often a judge prefers the longer of two performances that differ in nothing else.

    **Arguments:** `share`: of the answers, those without preference as half; `low`, `high`: its
    interval. A judge goes by length where a half is outside.
    """

    share: float
    low: float
    high: float


def check_length(
    performances: Sequence[Sequence[Performance]],
    judge: Judge,
    controls: int,
    *,
    longer_by: int,
    random: np.random.Generator,
    idle: Callable[[Performance, int], Performance] | None = None,
    confidence: float = 0.95,
) -> LengthCheck:
    """Shows a judge performances beside themselves with idle steps at the end.

    Between different performances length and quality go together, and one may hide the other; here
    only length differs.

    **Arguments:** `performances`: of each agent; `controls`: how many pairs; `longer_by`: idle
    steps; `idle`: adds so many idle steps to a performance, for judges who look at what is shown
    and not at the number of steps; `confidence`: of the interval (Wilson's).

    Raises `DataError` if there is no performance, or for an answer that is none;
    `SpecificationError` unless there is a pair and an idle step.
    """
    if controls < 1 or longer_by < 1:
        raise SpecificationError(
            f"controls = {controls} and longer_by = {longer_by}: both are at least 1"
        )
    shown = [performance for found in performances for performance in found]
    if not shown:
        raise DataError("there is no performance to be shown")
    preferred = 0.0
    for _ in range(controls):
        short = shown[random.integers(len(shown))]
        long = short._replace(steps=short.steps + longer_by)
        long = long if idle is None else idle(short, longer_by)
        turned = bool(random.random() < 0.5)
        answer = _answer(judge, *((long, short) if turned else (short, long)))
        preferred += answer if turned else 1.0 - answer
    share, z = preferred / controls, float(norm.ppf(0.5 + confidence / 2))
    middle = (share + z**2 / (2 * controls)) / (1 + z**2 / controls)
    spread = np.sqrt(share * (1 - share) / controls + z**2 / (4 * controls**2))
    reach = float(z / (1 + z**2 / controls) * spread)
    return LengthCheck(share, middle - reach, middle + reach)


def _answer(judge: Judge, first: Performance, second: Performance) -> float:
    answer = judge(first, second)
    if answer not in (0.0, 0.5, 1.0):
        raise DataError(f"the judge answered {answer!r}: 1, 0 or 0.5 is an answer")
    return float(answer)
