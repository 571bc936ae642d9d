"""What is said of a log of decisions, beside sums over its rows."""

import numpy as np
import pytest

from headwater.analysis.describe_pulls import describe_pulls
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls


def log(rows=4000, seed=0, **changes):
    draw = np.random.default_rng(seed)
    chances = np.asarray([0.6, 0.3, 0.1])
    arm = draw.choice(3, size=rows, p=chances)
    reward = (draw.random(rows) < np.asarray([0.2, 0.5, 0.8])[arm]).astype(np.float32)
    columns = {"context": np.zeros((rows, 0)), "features": np.zeros((1, 3, 0)), "arm": arm,
               "reward": reward, "propensity": chances[arm], **changes}  # fmt: skip
    return Pulls(**columns)


def test_numbers_are_those_of_the_rows():
    data = log()
    found = describe_pulls(data, Arms(3), name="a log", used={"arm": ["shown"]}, unused=["user"])
    assert found.pulls == [int(np.sum(data.arm == arm)) for arm in range(3)]
    for arm in range(3):
        assert found.rewards[arm] == pytest.approx(data.reward[data.arm == arm].mean())
    # All arms alike earn the mean of their means, a half.
    assert abs(found.uniform - 0.5) < 4.0 * found.uniform_error < 0.12
    # The share of rounds that count: 1 / E[w²] with w = 1 / (3 p).
    known = 1.0 / np.sum(1.0 / (9.0 * np.asarray([0.6, 0.3, 0.1])))
    assert found.effective_rounds / 4000 == pytest.approx(known, rel=0.1)
    assert not found.notes
    rows = dict(found.rows())
    assert rows["rounds / arms"] == "4,000 / 3" and rows["not used"] == "user"
    assert rows["read as arm"] == "shown" and "mean reward 0." in rows["arm 0"]
    assert found.to_json()["pulls"] == found.pulls


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_as_large_as_estimates_differ(seed):
    found = [describe_pulls(log(500, 100 * seed + i), Arms(3)) for i in range(60)]
    spread = np.std([each.uniform for each in found])
    assert 0.7 < np.mean([each.uniform_error for each in found]) / spread < 1.4


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"propensity": np.full(4000, 1 / 3)}, None),
        ({"propensity": np.full(4000, 0.9)}, "the propensities do not fit how often arms"),
        ({"reward": np.ones(4000)}, "every reward is 1: there is nothing to learn from"),
        ({"arm": np.zeros(4000, int), "propensity": np.ones(4000)}, "every propensity is 1: the"),
        ({"arm": np.zeros(4000, int)}, "never chosen, so that nothing is known of them: arms 1, 2"),
        ({"propensity": np.where(np.arange(4000) == 7, 1e-4, 0.9)}, "one round counts for 69% of"),
    ],
)
def test_what_looks_odd_is_said(changes, note):
    notes = describe_pulls(log(**changes), Arms(3)).notes
    if note is None:
        # Weights of one are one in the mean, whatever was chosen.
        assert not notes
    else:
        assert any(note in each for each in notes), notes
