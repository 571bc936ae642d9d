"""The one tuner: held out from what is judged, and reproducible."""

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.evaluation.tuning import choose, held_out_seed, tune

SETTINGS = (0.1, 1.0, 10.0)


def gaps_of(settings, seed: int) -> np.ndarray:
    """Of five instances; the judged ones (seed below 100) prefer another setting."""
    random = np.random.default_rng(seed)
    best = 10.0 if seed < 100 else 1.0
    return np.abs(np.log(np.asarray(settings)[:, None] / best)) + 0.1 * random.random(5)


def test_it_never_looks_at_what_is_judged():
    seeds = []

    def score(settings, seed):
        seeds.append(seed)
        return gaps_of(settings, seed)

    for seed in range(20):
        assert tune(SETTINGS, score, seed=seed).value == 1.0
    assert seeds == [held_out_seed(seed) for seed in range(20)]
    assert len({*seeds, *range(20)}) == 40
    # The judged ones alone would have chosen another.
    assert choose(gaps_of(SETTINGS, 3)) == 2


def test_it_says_what_it_chose_by_and_chooses_it_again():
    choice, again = (tune(SETTINGS, gaps_of, seed=4) for _ in range(2))
    np.testing.assert_array_equal(choice.scores, gaps_of(SETTINGS, held_out_seed(4)))
    np.testing.assert_array_equal(choice.scores, again.scores)
    assert (choice.index, choice.value) == (again.index, again.value) == (1, 1.0)


def test_the_largest_score_where_that_is_good():
    scores = lambda settings, seed: -gaps_of(settings, seed)
    assert tune(SETTINGS, scores, seed=0, largest=True).value == 1.0
    assert tune(SETTINGS, scores, seed=0).value != 1.0


def test_one_candidate_costs_nothing():
    def never(settings, seed):
        raise AssertionError

    choice = tune(["only"], never, seed=0)
    assert choice.value == "only" and choice.scores.shape == (1, 0)


def test_what_is_not_finite_is_never_chosen():
    scores = np.asarray([[np.nan, 0.0], [1.0, 3.0], [-np.inf, 1.0], [2.0, 2.0]])
    assert choose(scores) == 1, "the first of two that are alike"
    assert choose(scores, largest=True) == 1
    with pytest.raises(SpecificationError, match="no candidate has finite scores"):
        choose(scores[::2])


def test_nonsense_is_refused():
    with pytest.raises(SpecificationError, match="there is no candidate to choose"):
        tune([], gaps_of, seed=0)
    with pytest.raises(SpecificationError, match=r"scores have shape \[2, 5\], but 3 candidates"):
        tune(SETTINGS, lambda settings, seed: np.zeros((2, 5)), seed=0)
    with pytest.raises(SpecificationError, match=r"seed = 100000 must be one of 0 … 99,999"):
        tune(SETTINGS, gaps_of, seed=100_000)
    with pytest.raises(SpecificationError, match=r"\[candidate, instance\] is needed"):
        choose(np.zeros(3))
