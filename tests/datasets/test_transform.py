import dataclasses

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.history import frames_of
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load
from headwater.datasets.transform import (
    advantage_weights,
    effective_sample_size,
    episode_advantages,
    mix,
    positive_sided_variance,
    relabel,
    return_weights,
    scale_rewards,
    scaled_to_unit,
    top_episodes,
    with_history,
)
from headwater.datasets.write import write


def episodes(returns, lengths, starts=None, **metadata):
    """Episodes whose whole return comes at their last, terminal step."""
    rows = int(np.sum(lengths))
    last = np.cumsum(lengths) - 1
    first = np.concatenate([[0], last[:-1] + 1])
    observations = np.arange(rows, dtype=float)[:, None] * 0.01
    if starts is not None:
        observations = np.zeros((rows, np.shape(starts)[1]))
        observations[first] = starts
    rewards, terminals = np.zeros(rows), np.zeros(rows, bool)
    rewards[last], terminals[last] = returns, True
    return Dataset.from_arrays(
        observations, np.zeros((rows, 1)), rewards, terminals, metadata=metadata
    )


def test_return_weights_by_hand():
    data = episodes([0.0, 5.0, 10.0], [1, 2, 3])
    raw = np.exp(np.array([0.0, 0.5, 0.5, 1.0, 1.0, 1.0]) / 0.5)
    np.testing.assert_allclose(return_weights(data, 0.5), raw / raw.sum(), rtol=1e-12)


def test_default_temperature_and_longer_episodes():
    weights = return_weights(episodes([0.0, 1.0], [10, 10]))
    np.testing.assert_allclose(weights[10] / weights[0], np.exp(10.0), rtol=1e-9)
    # Equal returns: every row is as likely, so that an episode counts by its length.
    np.testing.assert_allclose(return_weights(episodes([3.0, 3.0], [1, 9])), np.full(10, 0.1))


def test_weights_do_not_depend_on_the_scale_of_returns():
    small, large = episodes([0, 1, 5], [2, 1, 3]), episodes([1e6, 2e6, 6e6], [2, 1, 3])
    np.testing.assert_allclose(return_weights(small), return_weights(large), rtol=1e-6)
    with pytest.raises(SpecificationError, match=r"temperature = 0.0 must be positive"):
        return_weights(small, 0.0)


def test_advantages_take_the_start_out():
    # Return = 2·x − y + 3 exactly, except for the last episode, which is on the plane's mean.
    starts = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 1], [3, 5.0]])
    returns = 2 * starts[:, 0] - starts[:, 1] + 3
    np.testing.assert_allclose(
        episode_advantages(episodes(returns, [2] * 6, starts)), np.zeros(6), atol=1e-5
    )
    returns[2] += 1.0
    design = np.column_stack([np.ones(6), starts])
    expected = returns - design @ np.linalg.solve(design.T @ design, design.T @ returns)
    data = episodes(returns, [2] * 6, starts)
    np.testing.assert_allclose(episode_advantages(data), expected, atol=1e-5)
    assert np.argmax(expected) == 2
    raw = np.repeat(np.exp(scaled_to_unit(expected) / 0.1), 2)
    np.testing.assert_allclose(advantage_weights(data), raw / raw.sum(), rtol=1e-3)


def test_a_constant_start_makes_both_weightings_agree():
    data = episodes([0.0, 5.0, 10.0], [1, 2, 3], np.ones((3, 2)))
    np.testing.assert_allclose(advantage_weights(data), return_weights(data), rtol=1e-9)


def test_effective_sample_size():
    assert effective_sample_size(np.ones(7)) == 7.0
    assert effective_sample_size(np.array([0, 0, 2.0])) == 1.0
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(1.6)


def test_positive_sided_variance():
    assert positive_sided_variance(np.array([0.0, 0.0, 0.0, 4.0])) == 9 / 4
    assert positive_sided_variance(np.array([0.0, 4.0, 4.0, 4.0])) == 3 / 4
    assert positive_sided_variance(np.array([2.0, 2.0])) == 0.0


def test_top_episodes_by_discounted_return():
    data = episodes([3.0, 10.0, 4.0, 1.0], [1, 3, 1, 1])
    assert top_episodes(data, 0.5).episode_returns().tolist() == [10.0, 4.0]
    # 10 · 0.5² = 2.5 is less than 3 and 4.
    assert top_episodes(data, 0.5, 0.5).episode_returns().tolist() == [3.0, 4.0]
    assert top_episodes(data, 0.01).episodes == 1
    assert top_episodes(data, 1.0).fingerprint() == data.fingerprint()
    with pytest.raises(SpecificationError, match=r"fraction = 10.0 is not in \(0, 1\]"):
        top_episodes(data, 10.0)


def test_mixing_whole_episodes():
    bad = episodes(np.zeros(100), [10] * 100, name="random")
    good = episodes(np.ones(30), [7] * 30, name="expert")
    mixed = mix([bad, good], [0.9, 0.1])
    parts = mixed.metadata["mixture"]["transitions"]
    # The bad part has 1000 rows for 0.9: 1111 in all, of which 111.1 are good, in whole sevens.
    assert parts == [1000, 112]
    assert mixed.episode_returns().sum() == 16
    assert mixed.metadata["parts"] == ["random", "expert"]
    order = mixed.episode_returns()
    assert order[:58].sum() > 0 and order[58:].sum() > 0
    small = mix([bad, good], [0.5, 0.5], size=140, seed=3)
    assert small.metadata["mixture"]["transitions"] == [70, 70]
    assert small.fingerprint() == mix([bad, good], [0.5, 0.5], size=140, seed=3).fingerprint()
    assert small.fingerprint() != mix([bad, good], [0.5, 0.5], size=140, seed=4).fingerprint()
    with pytest.raises(DataError, match=r"dataset 1 has 210 transitions but 500 are needed"):
        mix([bad, good], [0.5, 0.5], size=1000)
    with pytest.raises(SpecificationError, match="must be positive and add up to 1"):
        mix([bad, good], [0.5, 0.6])
    with pytest.raises(SpecificationError, match="there are 2 datasets but 1 fractions"):
        mix([bad, good], [1.0])


def test_scaled_rewards_keep_scores_and_shifted_ones_lose_them():
    data = episodes([3.0, 10.0], [2, 3], environment="Hopper-v5")
    half = scale_rewards(data, 0.5)
    np.testing.assert_allclose(half.rewards, data.rewards * 0.5)
    assert float(half.spaces.statistics.return_high) == 5.0
    np.testing.assert_allclose(
        half.normalised(half.episode_returns()), data.normalised(data.episode_returns())
    )
    shifted = scale_rewards(data, 10.0, -1.0)
    np.testing.assert_allclose(shifted.rewards, data.rewards * 10 - 1)
    with pytest.raises(DataError, match="no reference returns are known"):
        shifted.normalised([1.0])
    with pytest.raises(SpecificationError, match="the scale positive"):
        scale_rewards(data, -1.0)


def test_relabelling():
    data = episodes([3.0, 10.0], [2, 3], environment="Hopper-v5")
    other = relabel(data, lambda d: d.observations[:, 0])
    np.testing.assert_array_equal(other.rewards, data.observations[:, 0])
    assert other.references() is None and data.references() is not None
    with pytest.raises(DataError, match=r"the new rewards have shape \(2,\)"):
        relabel(data, lambda d: np.zeros(2))
    with pytest.raises(DataError, match="the new reward is nan at row 0"):
        relabel(data, lambda d: np.full(5, np.nan))


def test_histories_by_hand():
    observations = [[1.0], [2.0], [3.0], [4.0]]
    data = Dataset.from_arrays(
        observations, [0, 1, 1, 0], np.zeros(4), [False, True, False, True], action_count=2
    )
    made = with_history(data, 2)
    # Observation, the action before it (one-hot), and whether there is such a frame.
    nothing = [0.0] * 4
    first, second = [1.0, 0.0, 0.0, 1.0], [2.0, 1.0, 0.0, 1.0]
    third, fourth = [3.0, 0.0, 0.0, 1.0], [4.0, 0.0, 1.0, 1.0]
    assert made.observations.tolist() == [
        nothing + first,
        first + second,
        nothing + third,
        third + fourth,
    ]
    assert made.next_observations[0].tolist() == first + second
    assert made.next_observations[2].tolist() == third + fourth
    np.testing.assert_allclose(made.spaces.statistics.observation_mean[4], 2.5)


def test_no_history_of_nothing_and_none_of_rows_without_an_action():
    data = episodes([1.0], [3])
    with pytest.raises(SpecificationError, match="length = 0: a history has at least one frame"):
        with_history(data, 0)
    blank = dataclasses.replace(data, action_confidence=np.asarray([1, 0, 1], np.float32))
    with pytest.raises(DataError, match="row 1 has no action, which histories hold"):
        with_history(blank, 2)


def test_a_history_survives_a_file(tmp_path):
    data = with_history(episodes([1.0], [3]), 2)
    write(data, tmp_path / "log.npz")
    read = load(tmp_path / "log.npz")
    assert frames_of(read.spaces) == frames_of(data.spaces) == (2, 3)
