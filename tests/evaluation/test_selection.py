"""Which policy to deploy: certain, undecided, and none that can be judged."""

import numpy as np

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
    assert (high.probability_best, high.probability_better) == (1.0, 1.0)
    assert (low.probability_best, low.probability_better) == (0.0, 0.0)
    assert refused.value is None and refused.refused == "no weight"
    # The difference is far surer than either value, as both are of the same episodes.
    assert high.advantage_low is not None and high.advantage_high is not None
    assert high.low is not None and high.high is not None
    assert high.advantage_low < 0.2 < high.advantage_high
    assert high.advantage_high - high.advantage_low < 0.2 * (high.high - high.low)
    assert own.advantage == 0.0 and own.value == behaviour.mean()
    # What learns from the rows that judge says that it does; what only weighs them has no need to.
    assert found.sentence.endswith("are left out: take a small advantage for none")
    weighed = select_policy({"better": judged(better)}, judged(behaviour), estimator="wis")
    assert weighed.sentence.endswith("better than the behaviour with probability 1.00")
    told = found.to_json()
    assert told["deploy"] == "better" and len(told["candidates"]) == 4


def test_none_is_deployed_that_is_not_shown_to_be_better():
    rng = np.random.default_rng(1)
    behaviour = rng.normal(size=EPISODES)
    alike = behaviour + rng.normal(size=EPISODES)
    alike += behaviour.mean() - alike.mean() + 0.02
    found = select_policy({"alike": judged(alike)}, judged(behaviour), estimator="dr")
    assert found.deploy is None
    assert found.sentence.startswith("none is shown to be better than the behaviour: the likeliest")
    only = select_policy({"a": "why not"}, judged(behaviour), estimator="dr")
    assert only.deploy is None and only.sentence.startswith("none can be judged from this log")
    assert only.candidates[-1].probability_best == 1.0
