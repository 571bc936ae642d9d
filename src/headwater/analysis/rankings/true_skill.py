"""A ranking that is kept up to date comparison by comparison: TrueSkill."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from headwater.analysis.rankings.comparisons import Comparisons, checked
from headwater.analysis.registry import analysis
from headwater.core.errors import SpecificationError


class Skills(NamedTuple):
    """What is believed of the participants' skills: a normal distribution.

    **Arguments:** `mean`: `[participant]`; `covariance`: `[participant, participant]`.
    """

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """How sure each skill is, `[participant]`."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Within which each skill is believed to lie with this probability."""
        reach = norm.ppf(0.5 + confidence / 2) * self.deviation
        return self.mean - reach, self.mean + reach

    @property
    def order(self) -> np.ndarray:
        """Participants from the best on, by mean."""
        return np.argsort(-self.mean, kind="stable")


@analysis(paper="herbrich2006trueskill")
def true_skill(
    comparisons: Comparisons,
    participants: int,
    *,
    mean: float = 25.0,
    deviation: float = 25.0 / 3.0,
    beta: float = 25.0 / 6.0,
    draw_probability: float = 0.1,
    drift: float = 25.0 / 300.0,
    correlated: bool = True,
) -> Skills:
    """The beliefs after all comparisons, in their order.

    How each performs is normal around its skill with deviation `beta`; the better performance wins,
    and two within a margin are equal. Every comparison is taken in once, by matching moments, so
    that another order gives slightly other beliefs.

    **Arguments:** `comparisons`; `participants`: how many there are; `mean`, `deviation`: of the
    belief before any comparison; `beta`: of performances; `draw_probability`: how often equals are
    found equal, which sets the margin; `drift`: deviation of what skills change by before each
    comparison, 0 where they do not; `correlated`: whether beliefs about different skills may depend
    on each other. TrueSkill as published says no; skills are told by their differences alone, so
    that its intervals are then too narrow (of 95 % they held two thirds in tournaments of six with
    100 comparisons, where those with correlations held as they say).

    Raises `DataError` for what is no comparison, `SpecificationError` for numbers out of range.
    From Herbrich, Minka, Graepel 2006.
    """
    first, second, outcome, _ = checked(comparisons, participants)
    if not (deviation > 0.0 and beta > 0.0 and drift >= 0.0 and 0.0 <= draw_probability < 1.0):
        raise SpecificationError(
            "deviation and beta must be positive, drift at least 0, and draw_probability in [0, 1)"
        )
    if draw_probability == 0.0 and np.any(outcome == 0.5):
        raise SpecificationError(
            "some outcomes are equal, which draw_probability = 0 excludes: give their share"
        )
    margin = norm.ppf((draw_probability + 1.0) / 2.0) * np.sqrt(2.0) * beta
    means = np.full(participants, float(mean))
    covariance = np.eye(participants) * float(deviation) ** 2
    for one, other, result in zip(first, second, outcome):
        winner, loser = (one, other) if result >= 0.5 else (other, one)
        pair = [winner, loser]
        covariance[pair, pair] += drift**2
        # How every skill goes along with the difference of these two.
        along = covariance[:, winner] - covariance[:, loser]
        spread = float(np.sqrt(2.0 * beta**2 + along[winner] - along[loser]))
        gap, reach = float(means[winner] - means[loser]) / spread, float(margin) / spread
        shift, shrink = _equal(gap, reach) if result == 0.5 else _won(gap - reach)
        means += along / spread * shift
        covariance -= np.outer(along, along) / spread**2 * shrink
        if not correlated:
            covariance = np.diag(np.diag(covariance))
    return Skills(means, covariance)


def _won(gap: float) -> tuple[float, float]:
    """How far the difference moves and how much narrower it gets, given that it is positive."""
    shift = float(np.exp(norm.logpdf(gap) - norm.logcdf(gap)))
    return shift, shift * (shift + gap)


def _equal(gap: float, reach: float) -> tuple[float, float]:
    """The same, given that the difference is within `reach` of zero."""
    low, high = -reach - gap, reach - gap
    # The mass between the two ends, on the side where it is not a difference of two ones.
    sign = -1.0 if low > 0.0 else 1.0
    mass = max(float(abs(norm.cdf(sign * high) - norm.cdf(sign * low))), 1e-300)
    shift = float(norm.pdf(low) - norm.pdf(high)) / mass
    edge = float(high * norm.pdf(high) - low * norm.pdf(low)) / mass
    return shift, shift**2 + edge
