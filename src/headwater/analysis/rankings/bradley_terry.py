"""A ranking from comparisons, by the model of Bradley and Terry, with intervals."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from headwater.analysis.rankings.comparisons import Comparisons, checked
from headwater.analysis.registry import analysis
from headwater.core.errors import DataError, SpecificationError

_PRIOR_DEVIATION = 10.0
"""Of the weak normal prior of strengths, with which they stay finite where one always wins."""
_STEPS = 100
"""Of Newton's method, at most."""


class Ranking(NamedTuple):
    """How strong each participant is found to be, in log-odds, with zero as the mean of all.

    **Arguments:** `strength`, `low`, `high`: with the interval, `[participant]`; `covariance`: of
    the strengths; `order`: participants from the strongest on; `bias`: what a step more
    adds to the log-odds, with its interval, or `None` if lengths were left out; `confidence`: of
    the intervals.
    """

    strength: np.ndarray
    low: np.ndarray
    high: np.ndarray
    covariance: np.ndarray
    order: np.ndarray
    bias: tuple[float, float, float] | None
    confidence: float

    def difference(self, one: int, other: int) -> tuple[float, float, float]:
        """By how much `one` is stronger than `other`, and the ends of the interval of that."""
        found = float(self.strength[one] - self.strength[other])
        pair = [one, other]
        covariance = self.covariance[np.ix_(pair, pair)]
        variance = covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1]
        reach = float(norm.ppf(0.5 + self.confidence / 2) * np.sqrt(max(variance, 0.0)))
        return found, found - reach, found + reach


@analysis(paper="shah2021minerl")
def bradley_terry(
    comparisons: Comparisons,
    participants: int,
    *,
    by_length: bool = False,
    confidence: float = 0.95,
) -> Ranking:
    """The strengths under which the outcomes are the likeliest.

    The first is preferred with probability `sigmoid(strength[first] - strength[second])`, and
    `by_length` adds `bias · longer` inside. An outcome of a half counts as half a win of each, for
    which intervals are wider than they need be. Intervals are those of the normal approximation to
    the likelihood.

    **Arguments:** `comparisons`; `participants`: how many there are; `by_length`: let the judge go
    by the length of episodes too; `confidence`: of the intervals.

    Raises `DataError`, naming the comparison, for what is none, and if the comparisons fall apart
    into groups between which there is none; `SpecificationError` for a confidence out of (0, 1), or
    if lengths are not known.
    """
    first, second, outcome, longer = checked(comparisons, participants)
    if not 0.0 < confidence < 1.0:
        raise SpecificationError(f"confidence = {confidence} must lie strictly between 0 and 1")
    _check_connected(first, second, participants)
    rows = np.arange(len(first))
    design = np.zeros((len(first), participants + by_length))
    design[rows, first] += 1.0
    design[rows, second] -= 1.0
    scale = 1.0
    if by_length:
        if longer is None:
            raise SpecificationError(
                "by_length needs to know by how much the first of two episodes was longer: give "
                "longer with the comparisons"
            )
        # In units of its own size, so that the prior is as weak whatever it counts.
        scale = float(np.sqrt(np.mean(longer**2))) or 1.0
        design[:, -1] = longer / scale
    penalty = np.eye(design.shape[1]) / _PRIOR_DEVIATION**2
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = expit(design @ found)
        slope = design.T @ (outcome - chance) - penalty @ found
        weighted = design * (chance * (1.0 - chance))[:, None]
        step = np.linalg.solve(design.T @ weighted + penalty, slope)
        # Newton overshoots where the likelihood is flat.
        found = found + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-8:
            break
    else:
        raise DataError(
            f"the likeliest strengths were not found in {_STEPS} steps: participants of which some "
            "always win leave strengths so far apart that nothing tells how far; leave them out"
        )
    chance = expit(design @ found)
    information = design.T @ (design * (chance * (1.0 - chance))[:, None]) + penalty
    covariance = np.linalg.inv(information)
    centre = np.eye(participants) - 1.0 / participants
    strength = centre @ found[:participants]
    inner = centre @ covariance[:participants, :participants] @ centre
    quantile = float(norm.ppf(0.5 + confidence / 2))
    reach = quantile * np.sqrt(np.diag(inner))
    bias = None
    if by_length:
        half = quantile * float(np.sqrt(covariance[-1, -1]))
        middle = float(found[-1])
        bias = (middle / scale, (middle - half) / scale, (middle + half) / scale)
    order = np.argsort(-strength, kind="stable")
    return Ranking(strength, strength - reach, strength + reach, inner, order, bias, confidence)


def _check_connected(first: np.ndarray, second: np.ndarray, participants: int) -> None:
    group = np.arange(participants)
    for one, other in set(zip(first.tolist(), second.tolist())):
        group[group == group[other]] = group[one]
    apart = np.flatnonzero(group != group[0])
    if apart.size:
        raise DataError(
            f"no comparisons link participants 0 and {apart[0]}, so that they cannot be ranked "
            "together: compare them, or both with a third"
        )
