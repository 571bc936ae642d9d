import numpy as np
import pytest

from headwater.analysis.coverage import (
    approximate_count,
    duplicate_rows,
    row_hashes,
    saco,
    unique_pairs,
)
from headwater.datasets.dataset import Dataset


def logged(observations, actions):
    rows = len(observations)
    last = np.arange(rows) == rows - 1
    return Dataset.from_arrays(
        np.asarray(observations, float), np.asarray(actions), np.zeros(rows), last
    )


def test_unique_pairs_by_hand():
    # Over 0 to 100 a bin is one wide: 0.2 and 0.7 share a bin, 1.2 does not; 100 is in the last.
    states = [0.2, 0.7, 1.2, 99.5, 100.0, 0.0, 0.2]
    assert unique_pairs(logged(states, [0, 0, 0, 0, 0, 0, 1])) == 4
    assert unique_pairs(logged(states, [0, 1, 0, 0, 1, 0, 0])) == 5


def test_saco_is_relative_to_the_reference_and_its_range():
    reference = logged(np.arange(101.0), np.zeros(101, int))
    assert unique_pairs(reference) == 100
    data = logged([0.0, 0.5, 1.0, 50.0, 50.9, 400.0, -3.0], np.zeros(7, int))
    # Bins 0, 1, 50 and 99: what lies outside counts for the nearest bin.
    assert saco(data, reference) == 0.04
    assert saco(reference, reference) == 1.0


def test_continuous_actions_are_binned_like_observations():
    actions = np.array([[-1.0], [1.0], [0.0], [0.001], [0.05]])
    assert unique_pairs(logged(np.zeros(5), actions)) == 4


def test_counting_agrees_with_a_set():
    random = np.random.default_rng(0)
    states, actions = random.normal(size=(4000, 2)), random.integers(0, 3, 4000)
    states = states.astype(np.float32).astype(float)
    low, high = states.min(0), states.max(0)
    bins = np.minimum(np.floor((states - low) * 100.0 / (high - low)), 99)
    expected = len({(*map(int, b), int(a)) for b, a in zip(bins, actions)})
    data = logged(states, actions)
    assert unique_pairs(data) == expected
    assert unique_pairs(data, approximate=True) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("count", [0, 1, 100, 5_000, 40_000, 100_000, 1_000_000])
def test_the_approximate_count_is_within_its_error(count):
    errors = []
    for seed in range(4):
        numbers = np.arange(count, dtype=np.int64)[:, None] + seed * 10**9
        hashes = row_hashes(np.concatenate([numbers, numbers % 7], axis=1))
        # In two blocks that overlap: what was seen counts once.
        estimate = approximate_count([hashes[: 2 * count // 3], hashes[count // 3 :]])
        errors.append(estimate / count - 1.0 if count else estimate)
    # Standard error 0.0081; four standard errors for each, three for the mean of four.
    assert np.max(np.abs(errors)) < 0.033
    assert abs(np.mean(errors)) < 0.0125


def test_hashes_do_not_collide_or_depend_on_order_alone():
    grid = np.stack(np.meshgrid(np.arange(300), np.arange(300)), -1).reshape(-1, 2)
    assert np.unique(row_hashes(grid)).size == 90_000


def test_duplicate_rows():
    states = [1.0, 2.0, 1.0, 1.0, 1.0]
    data = Dataset.from_arrays(
        np.array(states),
        np.array([0, 0, 0, 1, 0]),
        np.zeros(5),
        [0, 0, 0, 0, 1],
        None,
        np.ones(5),
    )
    # Row 2 repeats row 0; row 3 has another action and row 4 is terminal.
    assert duplicate_rows(data) == 1
