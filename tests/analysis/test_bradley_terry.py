"""Bradley and Terry: known answers, and intervals that hold as often as they say."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from headwater.analysis.rankings.bradley_terry import bradley_terry
from headwater.analysis.rankings.comparisons import Comparisons
from headwater.core.errors import DataError, SpecificationError
from headwater.testing import check_analysis


def tournament(random, strength, comparisons):
    """Random pairs and who wins, by the model."""
    players = len(strength)
    first = random.integers(players, size=comparisons)
    second = (first + random.integers(1, players, size=comparisons)) % players
    won = random.random(comparisons) < expit(strength[first] - strength[second])
    return Comparisons(first, second, won.astype(float))


def test_strengths_are_the_likeliest():
    random = np.random.default_rng(0)
    first, second, outcome, _ = tournament(random, np.asarray([1.0, 0.0, -0.5, 0.3]), 150)
    outcome[:10] = 0.5

    def loss(free):
        strength = np.append(free, 0.0)
        margin = strength[first] - strength[second]
        return -np.sum(outcome * np.log(expit(margin)) + (1 - outcome) * np.log(expit(-margin)))

    best = np.append(minimize(loss, np.zeros(3), tol=1e-10).x, 0.0)
    comparisons = Comparisons(first, second, outcome)
    found = bradley_terry(comparisons, 4)
    # The weak prior moves them by a thousandth.
    np.testing.assert_allclose(found.strength, best - best.mean(), atol=5e-3)
    np.testing.assert_array_equal(found.order, np.argsort(-best))
    check_analysis(
        lambda comparisons: bradley_terry(comparisons, 4).strength,
        {"comparisons": Comparisons(first, second, outcome, np.ones(150))},
        best - best.mean(),
        rows={"comparisons": None},
        rtol=5e-3,
    )


def test_two_participants_have_the_log_odds_and_their_known_error():
    comparisons = Comparisons(
        np.zeros(100, int), np.ones(100, int), (np.arange(100) < 75).astype(float)
    )
    found = bradley_terry(comparisons, 2)
    difference, low, high = found.difference(0, 1)
    error = np.sqrt(1 / 75 + 1 / 25)
    np.testing.assert_allclose(difference, np.log(3), rtol=1e-2)
    np.testing.assert_allclose(high - low, 2 * norm.ppf(0.975) * error, rtol=1e-2)
    half, reach = np.log(3) / 2, norm.ppf(0.975) * error / 2
    ends = np.asarray([half, -half])
    variance = error**2 / 4
    expected = (ends, ends - reach, ends + reach, variance * np.asarray([[1, -1], [-1, 1]]))
    check_analysis(
        bradley_terry,
        {"comparisons": comparisons._replace(longer=np.ones(100)), "participants": 2},
        (*expected, np.asarray([0, 1]), 0.95),
        rows={"comparisons": None},
        rtol=1e-2,
    )


def test_intervals_hold_as_often_as_they_say_over_many_tournaments():
    random = np.random.default_rng(1)
    within, apart, biased = [], [], []
    for _ in range(400):
        strength = random.normal(size=5)
        strength -= strength.mean()
        comparisons = tournament(random, strength, 200)._replace(longer=random.normal(size=200))
        found = bradley_terry(comparisons, 5, by_length=True)
        within.append((found.low <= strength) & (strength <= found.high))
        _, low, high = found.difference(0, 1)
        apart.append(low <= strength[0] - strength[1] <= high)
        biased.append(not found.bias[1] <= 0.0 <= found.bias[2])
    # 2,000 intervals (not independent), 400 and 400: a true share of 0.95 is found within these.
    assert 0.93 < np.mean(within) < 0.97
    assert 0.92 < np.mean(apart) < 0.98
    # A judge who does not go by length is called biased one time in twenty.
    assert 0.02 < np.mean(biased) < 0.09


def test_who_always_wins_stays_finite():
    found = bradley_terry(Comparisons([0, 0, 1], [1, 1, 2], [1, 1, 1]), 3)
    assert np.all(np.isfinite([*found.strength, *found.low, *found.high]))
    np.testing.assert_array_equal(found.order, [0, 1, 2])
    assert found.difference(0, 1)[1] < 0.0


@pytest.mark.parametrize(
    ("given", "participants", "sentence"),
    [
        (([0, 1], [1, 1], [1, 0]), 2, "comparison 1: participant 1 is compared with itself"),
        (([0, 3], [1, 1], [1, 0]), 3, "comparison 1: the first is 3, but participants are numbered "
         "0 to 2"),
        (([0, 0], [1, 1], [1, 0.7]), 2, "comparison 1: the outcome is 0.7, but it is 1, 0 or 0.5"),
        (([0, 0], [1, 1], [1]), 2, "have shapes .2,., .2,., .1,.: one of each is needed for every"),
        (([], [], []), 2, "there is no comparison"),
        (([0, 2], [1, 3], [1, 0]), 4, "no comparisons link participants 0 and 2, so that they"),
        (([0], [1], [1], [1.0, 2.0]), 2, r"longer has shape \(2,\): a finite number for each of"),
    ],
)  # fmt: skip
def test_what_is_no_tournament_is_said(given, participants, sentence):
    with pytest.raises(DataError, match=sentence):
        bradley_terry(Comparisons(*given), participants)


def test_lengths_that_are_not_known_and_a_wrong_confidence_are_refused():
    one = Comparisons([0], [1], [1])
    with pytest.raises(SpecificationError, match="by_length needs to know by how much the first"):
        bradley_terry(one, 2, by_length=True)
    with pytest.raises(SpecificationError, match=r"confidence = 95.0 must lie strictly between 0"):
        bradley_terry(one, 2, confidence=95.0)


def test_strengths_that_are_not_found_are_refused(monkeypatch):
    monkeypatch.setattr("headwater.analysis.rankings.bradley_terry._STEPS", 3)
    with pytest.raises(DataError, match="were not found in 3 steps"):
        bradley_terry(Comparisons(np.asarray([0] * 99), np.asarray([1] * 99), np.ones(99)), 2)
