import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.linear.low_rank import (
    block_processes,
    latent_lock,
    random_low_rank,
    rich_combination_locks,
)
from headwater.evaluation.exact import best_return

_SIZES = {"tasks": 3, "states": 9, "actions": 3, "horizon": 4}


@pytest.mark.parametrize(
    "family", [latent_lock, block_processes, rich_combination_locks, random_low_rank]
)
def test_transitions_are_features_times_measures(family, key):
    given = family(**_SIZES, key=key)
    feature, measure = np.asarray(given.feature), np.asarray(given.measure)
    assert feature.shape[:3] == (4, 9, 3) and measure.shape == (3, 4, feature.shape[-1], 9)
    for task, step in np.ndindex(3, 4):
        product = np.einsum("saf,fn->san", feature[step], measure[task, step])
        np.testing.assert_allclose(given.process.transition[task, step], product, atol=1e-6)
    assert np.all(feature >= 0.0) and np.allclose(feature.sum(-1), 1.0, atol=1e-5)
    reward = np.asarray(given.process.reward)
    assert reward.max() <= 1.0 and np.all(np.asarray(best_return(given.process)) <= 1.0 + 1e-5)
    other = family(**_SIZES, key=jax.random.fold_in(key, 1))
    assert not np.array_equal(given.process.transition, other.process.transition)
    again = family(**_SIZES, key=key)
    assert np.array_equal(given.process.transition, again.process.transition)


def test_a_lock_opens_for_its_right_actions_alone(key):
    given = latent_lock(**_SIZES, rank=3, good=2, blur=0.0, key=key)
    right = np.asarray(given.feature)[..., 0] == 1.0
    assert np.array_equal(right.sum((1, 2)), [2] * 4)
    np.testing.assert_allclose(best_return(given.process), 1.0, rtol=1e-5)
    transition = np.asarray(given.process.transition)
    for step in range(3):
        good = right[step + 1].any(-1)
        for task in range(3):
            arrived = transition[task, step][:, :, good].sum(-1)
            np.testing.assert_allclose(arrived, right[step], atol=1e-6)
    assert not np.allclose(transition[0], transition[1])


def test_a_rich_lock_splits_evenly_and_sticks(key):
    given = rich_combination_locks(**_SIZES, slip=0.2, distraction=0.1, key=key)
    np.testing.assert_allclose(best_return(given.process), 0.8**3, rtol=1e-5)
    assert set(np.unique(np.asarray(given.process.reward))) <= {0.0, np.float32(0.1), 1.0}
    assert np.linalg.matrix_rank(np.asarray(given.process.transition)[0, 0].reshape(27, 9)) == 2


def test_the_rank_is_the_rank(key):
    for family in (latent_lock, random_low_rank):
        given = family(**_SIZES, rank=3, key=key)
        rows = np.asarray(given.process.transition)[1, 2].reshape(27, 9)
        assert np.linalg.matrix_rank(rows, tol=1e-4) == 3


def test_tasks_that_share_nothing_have_features_of_their_own(key):
    given = latent_lock(**_SIZES, shared=False, key=key)
    assert given.feature.shape == (3, 4, 9, 3, 4)
    assert not np.array_equal(given.feature[0], given.feature[1])
    part = given.subset([2, 0])
    assert np.array_equal(part.feature[0], given.feature[2])
    with pytest.raises(SpecificationError, match="share no features have no mixture"):
        given.mixture([1.0, 0.0, 0.0])


def test_subsets_and_mixtures(key):
    given = latent_lock(**_SIZES, key=key)
    assert np.array_equal(given.subset([1]).process.reward[0], given.task(1).reward)
    mixed = given.mixture([0.25, 0.0, 0.75]).transition
    transition = np.asarray(given.process.transition)
    np.testing.assert_allclose(mixed, 0.25 * transition[0] + 0.75 * transition[2], atol=1e-6)
    with pytest.raises(SpecificationError, match="there is no task 3: the tasks are 0 … 2"):
        given.task(3)
    with pytest.raises(SpecificationError, match="weight must be 3 numbers"):
        given.mixture([0.5, 0.4, 0.0])


@pytest.mark.parametrize(
    ("family", "sizes", "text"),
    [
        (latent_lock, {"rank": 10}, "rank = 10 does not fit 9 states: it must be from 2 to 9"),
        (latent_lock, {"rank": 1}, "rank = 1 does not fit 9 states"),
        (latent_lock, {"good": 9}, "good = 9 of 9 states: at least one must be good and one not"),
        (latent_lock, {"horizon": 0}, "horizon = 0 must be at least one"),
        (latent_lock, {"concentration": 0.0}, "concentration = 0 must be above zero"),
        (block_processes, {"blocks": 12}, "blocks = 12 does not fit 9 states"),
        (random_low_rank, {"rank": 10}, "rank = 10 does not fit 9 states: it must be from 1 to 9"),
        (rich_combination_locks, {"states": 2}, "need at least three states and two actions"),
        (rich_combination_locks, {"slip": 1.5}, "slip = 1.5 must be between zero and one"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(family, sizes, text, key):
    with pytest.raises(SpecificationError, match=text):
        family(**(_SIZES | sizes), key=key)
