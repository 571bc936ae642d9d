"""Judges: simulated ones do what they are told, and those who go by length are found out."""

import numpy as np
import pytest

from headwater.analysis.rankings.bradley_terry import bradley_terry
from headwater.analysis.rankings.judges import (
    Performance,
    SimulatedJudge,
    check_length,
    compare_agents,
)
from headwater.core.errors import DataError, SpecificationError


def quality(performance) -> float:
    """What the simulated judges go by."""
    return performance.shown


def test_a_judge_who_goes_by_length_is_found_out_in_both_ways():
    random = np.random.default_rng(2)
    performances = [
        [Performance(int(n), mean + random.normal()) for n in random.integers(10, 60, 50)]
        for mean in (0.0, 1.0, 2.0)
    ]
    for weight, goes_by_length in ((0.0, False), (0.05, True)):
        judge = SimulatedJudge(quality, 0.1, random, length_weight=weight)
        found = compare_agents(performances, judge, 400, random=random)
        ranking = bradley_terry(found, 3, by_length=True)
        assert (ranking.bias[1] > 0.0) == goes_by_length
        np.testing.assert_array_equal(ranking.order, [2, 1, 0])
        check = check_length(performances, judge, 40, longer_by=10, random=random)
        assert (check.low > 0.5) == goes_by_length


def test_errors_and_pairs_are_as_many_as_told():
    random = np.random.default_rng(3)
    performances = [[Performance(5, 0.0)], [Performance(5, 1.0)], [Performance(5, 2.0)]]
    judge = SimulatedJudge(quality, 0.2, random)
    found = compare_agents(performances, judge, 3_000, random=random)
    right = (found.outcome == 1.0) == (found.first > found.second)
    assert abs(np.mean(right) - 0.8) < 0.03
    sides = np.sort([found.first, found.second], axis=0)
    counts = np.unique(sides, axis=1, return_counts=True)[1]
    np.testing.assert_array_equal(counts, 1_000)
    assert abs(np.mean(found.first > found.second) - 0.5) < 0.05
    fair = SimulatedJudge(quality, 0.2, random)
    assert fair(performances[0][0], performances[0][0]) == 0.5


def test_idle_steps_are_shown_to_who_looks():
    random = np.random.default_rng(4)
    films = [[Performance(3, "abc")]]

    def likes_endings(first, second):
        return float(first.shown.endswith("..")) if first.shown != second.shown else 0.5

    check = check_length(
        films,
        likes_endings,
        30,
        longer_by=2,
        random=random,
        idle=lambda found, steps: Performance(found.steps + steps, found.shown + "." * steps),
    )
    assert check.share == 1.0 and check.low > 0.85 and check.high == pytest.approx(1.0)
    unmoved = check_length(films, likes_endings, 30, longer_by=2, random=random)
    assert unmoved.share == 0.5 and unmoved.low < 0.5 < unmoved.high


def test_what_no_judge_answers_is_refused():
    shown = [[Performance(1, 0.0)], [Performance(1, 1.0)]]
    random = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"the judge answered 2.0: 1, 0 or 0.5 is an answer"):
        compare_agents(shown, lambda one, other: 2.0, 3, random=random)
    with pytest.raises(DataError, match="agent 1 has no performance: record at least one"):
        compare_agents([shown[0], []], lambda one, other: 1.0, 3, random=random)
    with pytest.raises(DataError, match="at least two agents and one comparison are needed"):
        compare_agents(shown[:1], lambda one, other: 1.0, 3, random=random)
    with pytest.raises(SpecificationError, match=r"errors = 2.0 is not in \[0, 1\]"):
        SimulatedJudge(quality, 2.0, random)
    with pytest.raises(SpecificationError, match="controls = 3 and longer_by = 0: both are at"):
        check_length(shown, lambda one, other: 1.0, 3, longer_by=0, random=random)
