"""When a claim holds: criteria on intervals, and the intervals themselves."""

import numpy as np
import pytest
from scipy import stats

from headwater.core.errors import SpecificationError
from headwater.evaluation.statistics import Interval, frequency
from headwater.evidence.claim import (
    Claim,
    Criterion,
    Finding,
    exactly,
    mean_of,
    ratio_of_means,
)


def _between(low, high, point=None):
    return Interval(0.5 * (low + high) if point is None else point, low, high, 0.95, 5)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "at_most"),
    [
        (1.1, 2.0, "holds", "fails"),
        (1.0, 2.0, "holds", "undecided"),
        (0.0, 0.9, "fails", "holds"),
        (0.5, 1.5, "undecided", "undecided"),
        # The bound itself is on the right side of both.
        (1.0, 1.0, "holds", "holds"),
        (0.5, 1.0, "undecided", "holds"),
        (2.0, float("inf"), "holds", "fails"),
    ],
)
def test_a_criterion_looks_at_the_whole_interval(low, high, at_least, at_most):
    value = _between(low, high, point=min(high, 5.0))
    assert Criterion("x", value, at_least=1.0).verdict == at_least
    assert Criterion("x", value, at_most=1.0).verdict == at_most


def test_without_an_interval_nothing_is_decided():
    assert Criterion("x", Interval(9.0, None, None, 0.95, 2), at_least=1.0).verdict == "undecided"
    assert Criterion("x", exactly(float("nan")), at_least=1.0).verdict == "undecided"


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_a_criterion_has_one_bound(bounds):
    with pytest.raises(SpecificationError, match="criterion 'x' needs either at_least or at_most"):
        Criterion("x", exactly(1.0), **bounds)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((2.0, 3.0), "holds"),
        ((2.0, 0.0), "fails"),
        ((None, 0.0), "fails"),
        ((None, 2.0), "undecided"),
        ((), "undecided"),
    ],
)
def test_a_finding_is_as_good_as_its_worst_criterion(values, verdict):
    unsure = _between(0.5, 1.5)
    criteria = [Criterion("x", unsure if v is None else exactly(v), 1.0) for v in values]
    assert Finding(tuple(criteria)).verdict == verdict


def test_a_criterion_as_text():
    assert str(Criterion("x", exactly(3.0), at_most=4.0)) == "x: 3, must be ≤ 4: holds"
    text = str(Criterion("y", _between(0.5, 1.5), at_least=1.0))
    assert text == "y: 1 [0.5, 1.5], must be ≥ 1: undecided"
    few = Criterion("z", Interval(2.0, None, None, 0.95, 1), at_least=1.0)
    assert str(few) == "z: 2 (no interval: 1 seed), must be ≥ 1: undecided"


def test_a_frequency_has_the_exact_binomial_interval():
    for successes, trials in ((3, 20), (1, 1), (0, 7), (7, 7), (50, 64)):
        found = frequency(successes, trials)
        exact = stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
        assert (found.point, found.seeds) == (successes / trials, trials)
        np.testing.assert_allclose([found.low, found.high], [exact.low, exact.high], atol=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 3), (4, 3)])
def test_a_frequency_that_is_none(successes, trials):
    with pytest.raises(SpecificationError, match=f"{successes} successes in {trials} trials"):
        frequency(successes, trials)


def test_a_mean_is_widened_for_few_seeds():
    from headwater.evaluation.statistics import interval

    scores = [1.0, 2.0, 4.0, 3.0]
    wide, narrow = mean_of(scores), interval(scores, "mean")
    assert wide.point == narrow.point == 2.5
    assert wide.low < narrow.low and wide.high > narrow.high


def test_a_ratio_resamples_both_sides_together():
    # Sides that go together: their ratio is known much better than either of them.
    below = np.asarray([1.0, 10.0, 100.0, 1000.0])
    found = ratio_of_means(2.0 * below, below)
    np.testing.assert_allclose([found.point, found.low, found.high], 2.0, rtol=1e-12)
    apart = ratio_of_means(2.0 * below[::-1], below)
    assert apart.point == 2.0 and apart.low < 0.5 and apart.high > 5.0
    # Some resamples leave nothing to divide by, and then the ratio may be anything.
    rare = ratio_of_means([1.0, 1.0, 1.0], [0.0, 0.0, 3.0])
    assert (rare.point, rare.low, rare.high) == (1.0, 0.0, np.inf)
    assert ratio_of_means([2.0, 4.0], [1.0, 2.0]) == Interval(2.0, None, None, 0.95, 2)


@pytest.mark.parametrize(
    ("above", "below", "reason"),
    [
        ([1.0, 2.0], [1.0], "one number per seed on both sides"),
        ([], [], "one number per seed on both sides"),
        ([1.0, 2.0], [1.0, -1.0], "positive denominator"),
    ],
)
def test_a_ratio_that_is_none(above, below, reason):
    with pytest.raises(SpecificationError, match=reason):
        ratio_of_means(above, below)


def test_a_claim_is_run_with_the_arguments_of_its_scale():
    claim = Claim(
        "double",
        "Twice is twice.",
        (),
        "Nobody 2020",
        "nowhere",
        {"smoke": {"size": 2}, "small": {"size": 5}},
        lambda seed, size: Finding((Criterion("x", exactly(size + seed), 0.0),)),
    )
    assert claim.find("small", seed=3).criteria[0].value.point == 8.0
    with pytest.raises(SpecificationError, match=r"double: unknown scale 'smal': did you mean"):
        claim.find("smal")
