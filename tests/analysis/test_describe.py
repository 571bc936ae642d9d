import json

import numpy as np
import pytest

from headwater.analysis.describe import QUANTILES, action_support, describe, serious_notes
from headwater.core.errors import DataError
from headwater.datasets.dataset import Dataset
from headwater.datasets.transform import advantage_weights, return_weights


def episodes(returns, lengths, actions=None, **metadata):
    rows = int(np.sum(lengths))
    last = np.cumsum(lengths) - 1
    rewards, terminals = np.zeros(rows), np.zeros(rows, bool)
    rewards[last], terminals[last] = returns, True
    observations = np.column_stack([np.arange(rows) % 5, np.full(rows, 2.0)])
    actions = np.zeros((rows, 1)) if actions is None else actions
    return Dataset.from_arrays(observations, actions, rewards, terminals, metadata=metadata)


def test_numbers_by_hand():
    data = episodes([0.0, 10.0, 5.0], [5, 5, 10], name="mine", reference_returns=[-5, 15])
    found = describe(data)
    assert (found.name, found.environment) == ("mine", None)
    assert (found.episodes, found.transitions) == (3, 20)
    assert (found.terminal_episodes, found.truncated_episodes) == (3, 0)
    assert found.return_mean == 5.0
    assert found.return_quantiles == np.quantile([0, 5, 10], QUANTILES).tolist()
    assert found.score_mean == 50.0
    assert found.trajectory_quality == 0.5
    assert found.positive_sided_variance == pytest.approx(25 / 3)
    assert found.upside == pytest.approx(0.25 / 3)
    assert found.reward_zero_share == 18 / 20
    assert found.unique_pairs == 5 and found.saco is None
    weights = return_weights(data)
    assert found.effective_return_weights == pytest.approx(1 / np.sum(weights**2) / 20)
    weights = advantage_weights(data)
    assert found.effective_advantage_weights == pytest.approx(1 / np.sum(weights**2) / 20)
    assert "observation components 1 never change" in found.notes
    json.dumps(found.to_json(), allow_nan=False)
    table = dict(found.rows())
    assert table["normalised score"].startswith("mean 50; 25 to 75")
    assert table["references"] == "random -5, expert 15, from stored with the dataset"


def test_quality_from_given_returns():
    data = episodes([4.0, 6.0], [5, 5])
    assert describe(data).trajectory_quality is None
    found = describe(data, random_return=1.0, online_return=9.0)
    assert found.trajectory_quality == 0.5
    assert found.trajectory_quality_basis == "given returns"
    with pytest.raises(DataError, match=r"are both 1.0: TQ needs two different ones"):
        describe(data, random_return=1.0, online_return=1.0)


def test_coverage_needs_a_fitting_reference():
    data = episodes([4.0, 6.0], [5, 5])
    assert describe(data, reference=data).saco == 1.0
    other = Dataset.from_arrays(np.zeros((2, 1)), np.zeros((2, 1)), [0, 0], [0, 1])
    with pytest.raises(DataError, match="the reference replay does not fit the dataset: observa"):
        describe(data, reference=other)


def test_action_support():
    actions = np.array([0, 0, 1, 1, 3, 3, 3, 3])
    found = action_support(episodes([1.0], [8], actions))
    assert found["counts"] == [2, 2, 0, 4]
    assert found["entropy"] == pytest.approx(1.5 * np.log(2))
    assert found["entropy_share"] == pytest.approx(0.75)
    actions = np.array([[-1, 0.01], [1, 0.02], [0.97, 0.03], [0, 0.04]])
    found = action_support(episodes([1.0], [4], actions))
    assert found["at_bounds"] == [0.5, 0.0]
    assert found["bins_visited"] == [3 / 20, 1 / 20]
    np.testing.assert_allclose(found["std"], actions.std(0), rtol=1e-5)


def suggested(returns, reference_rows=None, **returns_of):
    data = episodes(returns, [5] * len(returns))
    reference = None
    if reference_rows is not None:
        rows = reference_rows
        reference = Dataset.from_arrays(
            np.column_stack([np.arange(rows) % 97, np.full(rows, 2.0)]),
            np.zeros((rows, 1)),
            np.zeros(rows),
            np.arange(rows) == rows - 1,
        )
    return " | ".join(describe(data, reference=reference, **returns_of).suggestions)


def test_suggestions():
    scale = {"random_return": 0.0, "online_return": 10.0}
    good = suggested([9.0, 9.5, 9.2], **scale)
    assert "TQ 0.92 is high: behaviour cloning" in good and "constrained methods" in good
    assert "both low" in suggested([1.0, 1.0], 200, **scale)
    assert "SACo 0.05 is low" in suggested([1.0, 1.0], 200)
    assert "SACo 1.00 is high: unconstrained" in suggested([1.0, 1.0], 5)
    assert "TQ 0.10 is not high" in suggested([1.0, 1.0], **scale)
    assert "nothing can be said" in suggested([1.0, 1.0])
    assert "RW or AW" in suggested([0.0] * 19 + [10.0])
    assert "RW or AW" not in suggested([1.0] * 20)


def test_notes_on_what_looks_odd():
    none = np.zeros(6, bool)
    data = Dataset.from_arrays(
        np.arange(6.0), np.zeros(6, int), np.zeros(6), none, none, np.array([1, 2, 9, 4, 5, 6.0])
    )
    notes = " | ".join(describe(data).notes)
    assert "in 1 rows (first: 2) the next observation is not that of the next row" in notes
    assert "no row is terminal" in notes and "all rewards are zero" in notes
    assert "nearly every row is a state–action pair of its own" in notes
    shifted = Dataset.from_arrays(np.arange(6.0), np.zeros(6, int), np.ones(6), none)
    assert any(note.startswith("1 last rows of truncated") for note in describe(shifted).notes)
    assert any("the same return" in note for note in describe(episodes([1, 1], [3, 2])).notes)


def test_serious_notes_are_few_and_exact():
    assert serious_notes(episodes([1.0, 2.0], [3, 2])) == []
    none = np.zeros(6, bool)
    cut = np.array([0, 0, 1, 0, 0, 1], bool)
    rewards = np.array([0, 0, 1.5, 0, 0, -1.0])
    data = Dataset.from_arrays(np.arange(6.0), np.array([0, 2, 2, 0, 2, 0]), rewards, none, cut)
    assert serious_notes(data) == [
        "2 last rows of truncated episodes had no known successor and were dropped; 2 of them had "
        "rewards, together 0.5",
        "no row is terminal: every episode ends by truncation",
        "all episodes have the same return",
        "all rewards are zero",
        "of 3 actions 1 never occur in the data: 1",
    ]
    assert Dataset.concatenate([data, data]).metadata["dropped_reward_sum"] == 1.0
