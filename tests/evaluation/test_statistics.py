"""Intervals and comparisons over seeds."""

import itertools

import numpy as np
import pytest
from rliable import metrics
from scipy.stats import spearmanr

from headwater.core.errors import DataError, SpecificationError
from headwater.evaluation.statistics import (
    band,
    difference,
    interval,
    performance_profile,
    probability_of_improvement,
    rank_correlation,
    rank_correlation_interval,
    seed_means,
)

SCORES = np.array(
    [
        [0.13, 0.74, 3.92, 3.05],
        [-0.54, 1.72, 5.91, 3.47],
        [-0.7, -1.53, 0.13, 3.02],
        [-2.33, 0.56, -1.74, 2.63],
        [-0.54, 0.37, 3.23, 3.52],
        [-0.13, 3.73, 0.0, 3.18],
    ]
)
OTHER = np.array(
    [
        [0.85, 3.14, 1.99, 2.35],
        [1.41, 2.39, -0.61, 3.29],
        [0.86, 2.09, 1.09, 3.27],
        [-0.24, 1.17, -0.45, 3.3],
        [0.54, 0.92, -1.35, 2.87],
    ]
)
# Recorded from rliable 1.2.0 (pandas 2.3.3), 50,000 resamples, percentile method.
RLIABLE = {
    "iqm": (metrics.aggregate_iqm, 0.46916667, 2.10166667),
    "mean": (metrics.aggregate_mean, 0.69208333, 1.96333333),
    "median": (metrics.aggregate_median, 0.2258125, 2.4275),
}


@pytest.mark.parametrize("statistic", RLIABLE)
def test_intervals_agree_with_rliable(statistic):
    reference, low, high = RLIABLE[statistic]
    found = interval(SCORES, statistic, resamples=20_000)
    assert found.point == pytest.approx(reference(SCORES), abs=1e-12)
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)
    assert found.seeds == 6


def test_probability_of_improvement_agrees_with_rliable():
    found = probability_of_improvement(SCORES, OTHER, resamples=10_000)
    assert found.point == pytest.approx(metrics.probability_of_improvement(SCORES, OTHER))
    assert found.low == pytest.approx(0.23333333, abs=0.02)
    assert found.high == pytest.approx(0.54166667, abs=0.02)
    assert found.seeds == 5


def test_probability_of_improvement_counts_ties_half():
    assert probability_of_improvement([1.0, 2.0, 2.0], [2.0, 2.0, 3.0]).point == pytest.approx(
        2 / 9
    )


def test_performance_profile_agrees_with_rliable():
    found = performance_profile(SCORES, [0.0, 1.0, 2.0], resamples=10_000)
    np.testing.assert_allclose(found.point, [16 / 24, 11 / 24, 10 / 24])
    np.testing.assert_allclose(found.low, [0.54166667, 0.33333333, 0.29166667], atol=0.03)
    np.testing.assert_allclose(found.high, [0.79166667, 0.58333333, 0.54166667], atol=0.03)


def test_one_task_median_is_over_seeds():
    assert interval([1.0, 2.0, 30.0], "median").point == 2.0


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_give_no_interval(seeds):
    found = interval(np.arange(seeds) + 1.0)
    assert found.point == pytest.approx(np.mean(np.arange(seeds) + 1.0))
    assert found.low is None and found.high is None
    assert f"{seeds} seed" in str(found)
    assert difference(np.ones(seeds), np.zeros(5)).p_value is None
    assert band(np.ones((seeds, 4))).low is None


def test_episodes_are_not_seeds():
    returns = np.random.default_rng(0).normal(size=(2, 1000))
    assert interval(seed_means(returns)).low is None
    np.testing.assert_allclose(seed_means(returns), returns.mean(1))
    with pytest.raises(DataError, match="one row per seed"):
        seed_means(returns[0])


def test_the_same_seed_gives_the_same_interval_whatever_ran_before():
    first = interval(SCORES, seed=3)
    np.random.default_rng().random(7)
    np.random.seed(1)
    assert interval(SCORES, seed=3) == first
    assert interval(SCORES, seed=4) != first


@pytest.mark.parametrize(("statistic", "lowest", "highest"), [("iqm", 0.84, 0.94)])
def test_coverage_with_five_seeds_is_as_documented(statistic, lowest, highest):
    plain = expanded = 0
    for repetition in range(400):
        scores = np.random.default_rng(repetition).normal(size=5)
        narrow = interval(scores, statistic, resamples=300)
        wide = interval(scores, statistic, resamples=300, expand=True)
        plain += narrow.low <= 0.0 <= narrow.high
        expanded += wide.low <= 0.0 <= wide.high
    assert lowest < plain / 400 < highest
    assert expanded / 400 > 0.9


def test_band_is_the_interval_at_each_position():
    curves = np.random.default_rng(0).normal(size=(6, 3)) + np.array([[0.0, 5.0, 9.0]])
    found = band(curves, resamples=5000)
    for position in range(3):
        alone = interval(curves[:, position], resamples=5000)
        assert found.point[position] == pytest.approx(alone.point)
        assert found.low[position] == pytest.approx(alone.low, abs=0.1)
        assert found.high[position] == pytest.approx(alone.high, abs=0.1)


def test_permutation_test_agrees_with_enumeration():
    first, second = np.array([3.0, 4.0, 5.5, 7.0]), np.array([1.0, 2.0, 3.5, 4.5])
    pooled = np.concatenate([first, second])
    observed = first.mean() - second.mean()
    extreme = [
        abs(pooled[list(c)].mean() - np.delete(pooled, c).mean()) >= abs(observed) - 1e-9
        for c in itertools.combinations(range(8), 4)
    ]
    found = difference(first, second, "mean", resamples=20_000)
    assert found.interval.point == pytest.approx(observed)
    assert found.p_value == pytest.approx(np.mean(extreme), abs=0.01)


def test_identical_methods_do_not_differ():
    found = difference(SCORES, SCORES)
    assert found.interval.low < 0.0 < found.interval.high
    assert found.p_value == 1.0


def test_bad_scores_are_refused_in_words():
    with pytest.raises(DataError, match="seed 1 in column 0 is nan"):
        interval([1.0, np.nan, 2.0])
    with pytest.raises(DataError, match="same tasks"):
        difference(SCORES, SCORES[:, :2])
    with pytest.raises(SpecificationError, match="did you mean iqm"):
        interval([1.0, 2.0, 3.0], "iqr")
    with pytest.raises(SpecificationError, match="between 0 and 1"):
        interval([1.0, 2.0, 3.0], level=1.5)
    with pytest.raises(DataError, match="average the episodes"):
        interval(np.zeros((2, 3, 4)))


def test_rank_correlation_agrees_with_scipy_also_where_there_are_ties():
    draw = np.random.default_rng(0)
    first = draw.integers(0, 5, 30)
    second = first + draw.integers(0, 4, 30)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second)[0], abs=1e-12)
    assert rank_correlation(first, np.ones(30)) == 0.0
    table = rank_correlation(first.reshape(5, 6), second.reshape(5, 6))
    assert table == rank_correlation(first, second)


def test_the_interval_of_a_rank_correlation_resamples_pairs():
    draw = np.random.default_rng(1)
    first = draw.normal(size=12)
    second = first + draw.normal(size=12)
    found = rank_correlation_interval(first, second, resamples=300, seed=4)
    assert found.point == pytest.approx(spearmanr(first, second)[0]) and found.seeds == 12
    # Another generator, and so other resamples: the ends are near, and not the same.
    other = np.random.default_rng(5)
    drawn = []
    for _ in range(2_000):
        rows = other.integers(0, 12, 12)
        drawn.append(spearmanr(first[rows], second[rows])[0])
    expected = np.quantile(drawn, (0.025, 0.975))
    np.testing.assert_allclose((found.low, found.high), expected, atol=0.1)
    assert rank_correlation_interval(first[:2], second[:2]).low is None
