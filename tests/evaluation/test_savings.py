"""Sample savings against simulated curves whose truth is known."""

import json

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.evaluation.savings import sample_savings, samples_to_target

STEPS = np.arange(0, 50_001, 1000.0)
FAST, SLOW = [3000, 4000, 4000, 5000, 6000], [18_000, 20_000, 21_000, 25_000, 30_000]


def curves(times, steps=STEPS):
    """Returns that jump from -1000 to -100 at each run's time."""
    return np.where(steps[None] >= np.asarray(times, float)[:, None], -100.0, -1000.0)


def savings(fast, slow, **options):
    return sample_savings((STEPS, curves(fast)), (STEPS, curves(slow)), -200.0, **options)


def test_samples_are_those_of_the_first_evaluation_at_the_target():
    found = samples_to_target(STEPS, curves([0, 300, 4000, 90_000]), -200.0)
    np.testing.assert_array_equal(found.latest, [1000, 1000, 4000, np.inf])
    np.testing.assert_array_equal(found.earliest, [1000, 1000, 4000, 50_000])
    np.testing.assert_array_equal(found.reached, [True, True, True, False])
    assert found.median == 2500.0


def test_a_target_must_be_held():
    returns = np.array([[9.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]])
    steps = np.arange(8.0)
    # What was there before the first update is not counted, however good.
    assert samples_to_target(steps, returns, 6.0, hold=1).latest[0] == 2.0
    assert samples_to_target(steps, returns, 6.0).latest[0] == 4.0
    assert samples_to_target(steps + 1, returns, 6.0, hold=1).latest[0] == 1.0
    # Reached at last: whether it would have been held is not known.
    for count in (3, 1):
        found = samples_to_target(steps[:count], returns[:, :count], 6.0)
        assert found.latest[0] == np.inf and found.earliest[0] == found.budget == count - 1


def test_the_level_before_the_first_update_is_told_beside():
    returns = curves(FAST)
    returns[:, 0] = [-100.0, -200.0, -300.0, -400.0, -500.0]
    found = sample_savings((STEPS, returns), (STEPS, curves(SLOW)), -200.0)
    assert found.ratio == 21 / 4 and found.before is not None
    assert found.before.point == pytest.approx(-300.0)
    assert found.sentence.endswith("; before its first update it was at -300")
    later = sample_savings((STEPS[1:], returns[:, 1:]), (STEPS, curves(SLOW)), -200.0)
    assert later.before is None and "before" not in later.sentence


def test_uncensored_runs_give_the_ratio_of_medians():
    found = savings(FAST, SLOW)
    assert (found.ratio, found.known) == (21 / 4, "exactly")
    assert 18 / 6 <= found.low < found.ratio < found.high <= 30 / 3
    assert found.sentence == (
        "reaches and holds -200 after 4,000 steps instead of 21,000: 5.2× fewer (95% interval "
        "3.5–7.5×); before its first update it was at -1,000"
    )


def test_one_censored_run_leaves_the_ratio_known_and_opens_the_upper_end():
    found = savings(FAST, [*SLOW[:4], 90_000])
    assert (found.ratio, found.known) == (21 / 4, "exactly")
    assert found.low > 3.0 and found.high is None
    whole = found.interval
    assert (whole.point, whole.low, whole.high) == (21 / 4, found.low, np.inf)
    assert found.sentence.count("× or more), 1 of 5 scratch runs never did; before") == 1


def test_mostly_censored_runs_give_a_lower_bound():
    found = savings(FAST, [18_000, 25_000, 90_000, 90_000, 90_000])
    assert (found.ratio, found.known) == (50 / 4, "at least")
    assert found.low < found.ratio and found.high is None
    assert "more than 50,000: at least 12.5× fewer" in found.sentence


def test_what_is_bounded_on_the_wrong_side_is_no_ratio():
    """The runs without the log were given up long before those with it arrived."""
    short = np.arange(0.0, 2_001.0, 1_000.0)
    never = (short, np.full((4, short.size), -300.0))
    found = sample_savings((STEPS, curves(SLOW[:4])), never, -200.0)
    assert found.ratio is not None and found.ratio < 1.0 and found.known == "at least"
    assert "instead of more than 2,000: how many times fewer the runs do not tell" in found.sentence


def test_savings_may_be_losses():
    found = savings(SLOW, FAST)
    assert found.ratio == pytest.approx(4 / 21)
    assert "instead of 4,000: 5.2× more (95% interval 3.5–7.5×)" in found.sentence
    never = savings([90_000] * 5, FAST)
    assert (never.known, never.low) == ("at most", None)
    assert "at least 12.5× more" in never.sentence
    assert never.interval.low == 0.0 and never.interval.high == never.high
    assert "none of 5 runs with the log ever did; before" in never.sentence


def test_no_run_arrives():
    found = savings([90_000] * 5, [90_000] * 5)
    assert (found.ratio, found.low, found.high) == (None, None, None)
    assert "nothing can be said" in found.sentence
    assert np.isnan(found.interval.point) and found.interval.low is None


def test_too_few_seeds_give_no_interval():
    found = savings(FAST[:2], SLOW)
    assert found.ratio is not None and found.low is None and found.high is None
    assert "no interval: 2 seeds" in found.sentence
    assert (found.interval.seeds, found.interval.low) == (2, None)


def test_a_coarse_scratch_grid_does_not_count_as_savings():
    coarse = np.arange(0, 50_001, 10_000.0)
    times = [11_000, 12_000, 13_000]
    fine = sample_savings((STEPS, curves(times)), (STEPS, curves(times)), -200.0)
    mixed = sample_savings((STEPS, curves(times)), (coarse, curves(times, coarse)), -200.0)
    assert fine.ratio == 1.0
    # Seen at 20,000, but the finer grid could have shown it at 11,000.
    assert mixed.ratio == pytest.approx(11 / 12)


def test_plain_values_are_json_without_infinities():
    plain = json.loads(json.dumps(savings(FAST, [90_000] * 5).plain(), allow_nan=False))
    assert plain["without_log"]["samples"] == [None] * 5
    assert plain["known"] == "at least" and plain["high"] is None


@pytest.mark.parametrize(
    ("budget", "least"), [(1e9, 0.92), (30_000.0, 0.92)], ids=["uncensored", "censored"]
)
def test_interval_covers_the_true_ratio(budget, least):
    """Log-normal times, medians 4,000 and 20,000; 30,000 steps censor a fifth of the slow."""
    rng, repetitions, covered, closed = np.random.default_rng(0), 300, 0, 0
    steps = np.unique(np.round(np.geomspace(100, min(budget, 1e6), 1500)))
    for _ in range(repetitions):
        fast = 4000 * np.exp(0.5 * rng.normal(size=5))
        slow = 20_000 * np.exp(0.5 * rng.normal(size=5))
        found = sample_savings(
            (steps, curves(fast, steps)), (steps, curves(slow, steps)), -200.0, resamples=400
        )
        covered += (found.low or 0.0) <= 5.0 <= (found.high or np.inf)
        closed += found.low is not None
    assert least < covered / repetitions < 0.995
    assert closed / repetitions > 0.95


def test_the_same_seed_gives_the_same_interval():
    assert savings(FAST, SLOW, seed=1).plain() == savings(FAST, SLOW, seed=1).plain()


def test_bad_curves_are_refused_in_words():
    with pytest.raises(DataError, match="one row of returns per seed"):
        samples_to_target(STEPS, curves(FAST)[:, 1:], 0.0)
    with pytest.raises(DataError, match="must rise"):
        samples_to_target(STEPS[::-1], curves(FAST), 0.0)
    with pytest.raises(DataError, match="seed 0 at evaluation 2 is nan"):
        samples_to_target([0.0, 1.0, 2.0], [[0.0, 1.0, np.nan]], 0.0)
    with pytest.raises(SpecificationError, match="at least one evaluation"):
        samples_to_target(STEPS, curves(FAST), 0.0, hold=0)
