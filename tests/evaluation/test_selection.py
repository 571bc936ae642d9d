"""Which policy to deploy: certain, undecided, and none that can be judged."""

import numpy as np
import pytest
from scipy import stats

from headwater.evaluation.estimators.bootstrap import confidence_above_zero
from headwater.evaluation.estimators.importance import Judged
from headwater.evaluation.estimators.selection import select_policy

EPISODES = 300


def judged(influence: np.ndarray) -> Judged:
    return Judged(float(influence.mean()), influence)


def test_the_likeliest_best_is_deployed_if_it_beats_the_behaviour():
    rng = np.random.default_rng(0)
    behaviour = rng.normal(size=EPISODES)
    better = behaviour + 0.2 + 0.1 * rng.normal(size=EPISODES)
    worse = behaviour - 0.2 + 0.1 * rng.normal(size=EPISODES)
    found = select_policy(
        {"worse": judged(worse), "refused": "no weight", "better": judged(better)},
        judged(behaviour),
        estimator="drl",
    )
    assert found.deploy == "better" and found.sentence.startswith("deploy better: the best with")
    assert [c.name for c in found.candidates] == ["worse", "refused", "better", "the behaviour"]
    low, refused, high, own = found.candidates
    assert (high.probability_best, high.confidence_better) == (1.0, 1.0)
    assert (low.probability_best, low.confidence_better) == (0.0, 0.0)
    assert refused.value is None and refused.refused == "no weight"
    # The difference is far surer than either value, as both are of the same episodes.
    assert high.advantage_low is not None and high.advantage_high is not None
    assert high.low is not None and high.high is not None
    assert high.advantage_low < 0.2 < high.advantage_high
    assert high.advantage_high - high.advantage_low < 0.2 * (high.high - high.low)
    assert own.advantage == 0.0 and own.value == behaviour.mean()
    # What fits a network to the rows that judge says that it does.
    assert found.sentence.endswith("take a small advantage for none, or choose by mis")
    for estimator in ("wis", "mis"):
        weighed = select_policy({"better": judged(better)}, judged(behaviour), estimator=estimator)
        assert weighed.sentence.endswith("better than the behaviour with confidence 1.00")
    told = found.to_json()
    assert told["deploy"] == "better" and len(told["candidates"]) == 4


def test_none_is_deployed_that_is_not_shown_to_be_better():
    rng = np.random.default_rng(1)
    behaviour = rng.normal(size=EPISODES)
    alike = behaviour + rng.normal(size=EPISODES)
    alike += behaviour.mean() - alike.mean() + 0.02
    found = select_policy({"alike": judged(alike)}, judged(behaviour), estimator="dr")
    assert found.deploy is None
    assert found.sentence.startswith(
        "none is shown to be better than the behaviour: the confidence that alike, the likeliest "
        "best, is so is 0."
    )
    only = select_policy({"a": "why not"}, judged(behaviour), estimator="dr")
    assert only.deploy is None and only.sentence.startswith("none can be judged from this log")
    assert only.candidates[-1].probability_best == 1.0


def test_the_best_of_several_that_are_no_better_is_seldom_called_better():
    # Eight candidates, each as good as the behaviour in truth, in 300 logs. The criterion was set
    # before it was measured: at most 8 %, which is 2.4 standard errors above 5 %. Each by itself,
    # the best of them would be called better in about a third of the logs.
    rng = np.random.default_rng(2)
    together = alone = 0
    for seed in range(300):
        differences = rng.normal(size=(8, 60))
        together += confidence_above_zero(differences, 250, seed).max() >= 0.95
        tests = stats.ttest_1samp(differences, 0.0, axis=1, alternative="greater")
        alone += tests.pvalue.min() < 0.05
    assert together <= 24 and alone > 60


def test_the_confidence_of_one_candidate_is_that_of_a_t_test():
    difference = 0.1 + np.random.default_rng(3).normal(size=(1, 200))
    [found] = confidence_above_zero(difference, 4_000, 0)
    expected = 1.0 - stats.ttest_1samp(difference[0], 0.0, alternative="greater").pvalue
    assert found == pytest.approx(expected, abs=0.02) and found < 0.99
    # What never differs is not above the behaviour, nor does it stand in the way of another.
    same = np.stack([np.zeros(200), difference[0]])
    np.testing.assert_array_equal(confidence_above_zero(same, 4_000, 0), [0.0, found])
    np.testing.assert_array_equal(confidence_above_zero(np.ones((1, 9)), 10, 0), [1.0])
