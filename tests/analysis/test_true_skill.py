"""TrueSkill: known answers, moments by sampling, and beliefs that hold as often as they say."""

import numpy as np
import pytest
from scipy.stats import norm

from headwater.analysis.rankings.comparisons import Comparisons
from headwater.analysis.rankings.true_skill import true_skill
from headwater.core.errors import DataError, SpecificationError
from headwater.testing import check_analysis


@pytest.mark.parametrize(
    ("outcome", "means", "deviation"),
    [
        # Known answers of a reference implementation's documentation, for the usual settings.
        (1.0, (29.396, 20.604), 7.171),
        (0.0, (20.604, 29.396), 7.171),
        (0.5, (25.000, 25.000), 6.458),
    ],
)
def test_one_game_has_the_known_outcome(outcome, means, deviation):
    found = true_skill(Comparisons([0], [1], [outcome]), 2)
    np.testing.assert_allclose(found.mean, means, atol=6e-4)
    np.testing.assert_allclose(found.deviation, deviation, atol=6e-4)
    check_analysis(
        true_skill,
        {"comparisons": Comparisons([0], [1], [outcome]), "participants": 2, "correlated": False},
        (np.asarray(means), deviation**2 * np.eye(2)),
        rtol=3e-4,
    )


def test_one_update_matches_the_moments_of_the_posterior():
    random = np.random.default_rng(3)
    # The beliefs after one comparison; what a second one does is compared with sampling.
    start = true_skill(Comparisons([0], [1], [1.0]), 2, drift=0.0)
    root = np.linalg.cholesky(start.covariance)
    draws = start.mean + random.normal(size=(1_000_000, 2)) @ root.T
    performance = draws + 25 / 6 * random.normal(size=draws.shape)
    margin = norm.ppf(0.55) * np.sqrt(2) * 25 / 6
    gap = performance[:, 0] - performance[:, 1]
    for outcome, kept in ((0.0, gap < -margin), (0.5, np.abs(gap) <= margin)):
        found = true_skill(Comparisons([0, 0], [1, 1], [1.0, outcome]), 2, drift=0.0)
        # Four standard errors of the sampling.
        error = 4.0 * draws[kept].std(0).max() / np.sqrt(kept.sum())
        np.testing.assert_allclose(found.mean, draws[kept].mean(0), atol=error)
        np.testing.assert_allclose(found.deviation, draws[kept].std(0), atol=error)


def test_beliefs_hold_as_often_as_they_say():
    random = np.random.default_rng(4)
    within = {True: [], False: []}
    for _ in range(100):
        skill = random.normal(25.0, 25 / 3, 6)
        first = random.integers(6, size=100)
        second = (first + random.integers(1, 6, size=100)) % 6
        chance = norm.cdf((skill[first] - skill[second]) / (np.sqrt(2) * 25 / 6))
        games = Comparisons(first, second, (random.random(100) < chance).astype(float))
        for correlated, found in within.items():
            skills = true_skill(games, 6, draw_probability=0.0, drift=0.0, correlated=correlated)
            low, high = skills.interval()
            found.append((low <= skill) & (skill <= high))
    # 600 intervals of 95 %, which are not independent.
    assert 0.91 < np.mean(within[True]) < 0.985
    # As published it is too sure of single skills, which its documentation says.
    assert np.mean(within[False]) < 0.8


def test_what_does_not_fit_is_said():
    with pytest.raises(SpecificationError, match="some outcomes are equal, which draw_probability"):
        true_skill(Comparisons([0], [1], [0.5]), 2, draw_probability=0.0)
    with pytest.raises(SpecificationError, match="deviation and beta must be positive"):
        true_skill(Comparisons([0], [1], [1.0]), 2, beta=0.0)
    with pytest.raises(DataError, match="comparison 0: participant 1 is compared with itself"):
        true_skill(Comparisons([1], [1], [1.0]), 2)
