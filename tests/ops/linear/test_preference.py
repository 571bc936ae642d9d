"""Bradley–Terry likelihood, its maximum, designs of comparisons and remembered answers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.environments.linear.linear_reward import random_linear_rewards
from headwater.ops.linear.preference import (
    add_answers,
    expected_disagreement,
    expected_features,
    feature_map,
    information,
    informative_pairs,
    log_likelihood,
    most_likely,
    no_answers,
    one_block_each_step,
    score,
    step_features,
    trajectory_features,
)
from headwater.ops.tabular.planning import occupancy

_RANDOM = np.random.default_rng(0)
_ROWS = _RANDOM.normal(size=(40, 3))
_TRUE = np.asarray([1.0, -2.0, 0.5])
_FIRST = _RANDOM.random(40) < 1 / (1 + np.exp(-_ROWS @ _TRUE))
_ASKED = (_RANDOM.random(40) < 0.7).astype(np.float64)


def _arrays():
    return jnp.asarray(_ROWS, jnp.float32), jnp.asarray(_FIRST), jnp.asarray(_ASKED, jnp.float32)


def _by_hand(weights: np.ndarray) -> float:
    chance = 1 / (1 + np.exp(-_ROWS @ weights))
    return float(np.sum(_ASKED * np.log(np.where(_FIRST, chance, 1 - chance))))


def _gradient_by_differences(function, at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    axes = np.eye(len(at)) * step
    return np.asarray([(function(at + a) - function(at - a)) / (2 * step) for a in axes])


def test_likelihood_gradient_and_information():
    weights = np.asarray([0.3, -0.4, 1.2])
    rows, first, queried = _arrays()
    given = jnp.asarray(weights, jnp.float32)
    np.testing.assert_allclose(
        log_likelihood(given, rows, first, queried), _by_hand(weights), rtol=1e-5
    )
    slope = _gradient_by_differences(_by_hand, weights)
    np.testing.assert_allclose(score(given, rows, first, queried), slope, rtol=1e-4)
    bend = np.stack(
        [
            _gradient_by_differences(
                lambda w, i=i: _gradient_by_differences(_by_hand, w, 1e-4)[i], weights, 1e-4
            )
            for i in range(3)
        ]
    )
    np.testing.assert_allclose(information(given, rows, queried), -bend, rtol=1e-2, atol=1e-2)
    # Everything asked for is the same as saying nothing.
    ones = jnp.ones(40)
    for function in (log_likelihood, score):
        np.testing.assert_allclose(
            function(given, rows, first), function(given, rows, first, ones), rtol=1e-6
        )


def test_certain_answers_stay_finite():
    rows, first, _ = _arrays()
    assert np.isfinite(log_likelihood(jnp.full(3, 1e4), rows, first))


def test_most_likely_is_where_the_gradient_is_zero():
    rows, first, queried = _arrays()
    found = jax.jit(lambda: most_likely(rows, first, queried, ridge=0.1))()
    np.testing.assert_allclose(score(found, rows, first, queried), 0.1 * found, atol=2e-4)
    warm = most_likely(rows, first, queried, ridge=0.1, start=found, steps=1)
    np.testing.assert_allclose(warm, found, atol=1e-3)


def test_most_likely_inside_a_ball_meets_the_conditions_of_the_maximum():
    rows, first, queried = _arrays()
    bound = 0.8
    found = most_likely(rows, first, queried, ridge=1e-3, norm_bound=bound)
    np.testing.assert_allclose(jnp.linalg.norm(found), bound, rtol=1e-4)
    slope = np.asarray(score(found, rows, first, queried) - 1e-3 * found)
    # The gradient points straight out of the ball.
    cosine = slope @ np.asarray(found) / np.linalg.norm(slope) / bound
    np.testing.assert_allclose(cosine, 1.0, atol=1e-4)
    free = most_likely(rows, first, queried, ridge=0.1)
    wide = most_likely(rows, first, queried, ridge=0.1, norm_bound=100.0)
    np.testing.assert_allclose(wide, free, atol=1e-3)


def test_one_dimension_is_a_log_odds():
    rows = jnp.ones((100, 1))
    first = jnp.arange(100) < 80
    found = most_likely(rows, first, ridge=1e-6)
    np.testing.assert_allclose(found[0], np.log(4.0), rtol=1e-3)


def test_separable_answers_end_at_the_bound():
    rows = jnp.asarray([[1.0, 0.0], [2.0, 1.0], [3.0, -1.0]])
    first = jnp.ones(3, bool)
    found = most_likely(rows, first, ridge=1e-6, norm_bound=5.0, steps=40)
    np.testing.assert_allclose(jnp.linalg.norm(found), 5.0, rtol=1e-3)


def test_the_ellipsoid_covers_the_truth():
    def one(key):
        row_key, answer_key = jax.random.split(key)
        rows = jax.random.normal(row_key, (200, 3))
        first = jax.random.bernoulli(answer_key, jax.nn.sigmoid(rows @ jnp.asarray(_TRUE)))
        found = most_likely(rows, first, ridge=1e-3)
        away = found - jnp.asarray(_TRUE, jnp.float32)
        return away @ information(found, rows) @ away

    distances = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 400))
    # The 90 % point of a χ² with three degrees of freedom; four standard errors are 0.06.
    assert 0.84 < np.mean(np.asarray(distances) <= 6.251) < 0.96


def test_expected_disagreement_is_that_of_drawn_rewards():
    precision = jnp.asarray([[2.0, 0.5], [0.5, 1.0]])
    difference = jnp.asarray([[1.0, -2.0], [0.0, 0.0]])
    found = expected_disagreement(difference, precision, 0.7)
    drawn = np.random.default_rng(1).multivariate_normal(
        np.zeros(2), 0.49 * np.linalg.inv(np.asarray(precision)), (2, 200_000)
    )
    by_draws = np.abs((drawn[0] - drawn[1]) @ np.asarray(difference).T).mean(axis=0)
    np.testing.assert_allclose(found, by_draws, rtol=1e-2, atol=1e-6)


def test_features_of_trajectories_and_policies():
    task = random_linear_rewards(states=3, actions=2, horizon=4, features=5, key=jax.random.key(0))
    features = np.asarray(task.features)
    states, actions = np.asarray([0, 2, 1, 1, 0]), np.asarray([1, 0, 1, 1])
    episode = Episodes(jnp.asarray(states), jnp.asarray(actions), jnp.zeros(4))
    by_hand = sum(features[h, states[h], actions[h]] for h in range(4))
    found = trajectory_features(episode, task.features)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    blocks = trajectory_features(episode, one_block_each_step(task.features))
    each = np.concatenate([features[h, states[h], actions[h]] for h in range(4)])
    np.testing.assert_allclose(blocks, each, rtol=1e-6)
    policy = jnp.full(task.process.reward.shape, 0.5)
    expected = np.einsum("hsa,hsaf->f", np.asarray(occupancy(task.process, policy)), features)
    np.testing.assert_allclose(
        expected_features(task.process, policy, task.features), expected, rtol=1e-5
    )
    plain = FiniteProblem(3, 2, 4)
    assert feature_map(plain).shape == (4, 3, 2, 24) and step_features(plain).shape == (4, 3, 2, 6)
    seen = np.asarray(trajectory_features(episode, feature_map(plain))).reshape(4, 3, 2)
    assert seen.sum() == 4 and seen[1, 2, 0] == 1 and seen[3, 1, 1] == 1
    with pytest.raises(SpecificationError, match="episodes have 4 steps, but the features are"):
        trajectory_features(episode, task.features[:3])


def test_designed_pairs_are_as_far_apart_as_any():
    """Against all pairs of the deterministic policies of a small process."""
    task = random_linear_rewards(states=2, actions=2, horizon=2, features=3, key=jax.random.key(3))
    tables = np.eye(2)[np.asarray(list(itertools.product((0, 1), repeat=4))).reshape(-1, 2, 2)]
    known = np.stack(
        [expected_features(task.process, jnp.asarray(t), task.features) for t in tables]
    )
    pairs, last = informative_pairs(
        task.process, task.features, 6, ridge=0.5, restarts=4, key=jax.random.key(0)
    )
    covariance, found = 0.5 * np.eye(3), np.nan
    for pair in np.asarray(pairs):
        one, other = (
            np.asarray(expected_features(task.process, jnp.asarray(p), task.features)) for p in pair
        )
        gap = one - other
        inverse = np.linalg.inv(covariance)
        between = known[:, None] - known[None]
        widest = np.sqrt(np.einsum("ijf,fg,ijg->ij", between, inverse, between)).max()
        found = np.sqrt(gap @ inverse @ gap)
        np.testing.assert_allclose(found, widest, rtol=1e-3)
        covariance += np.outer(gap, gap)
    np.testing.assert_allclose(last, found, rtol=1e-3)


def test_answers_are_kept_in_order_until_there_is_no_room():
    answers = no_answers(4, 1)
    rows = jnp.arange(1.0, 4.0)[:, None]
    first = jnp.asarray([True, False, True])
    answers = add_answers(answers, rows, first, jnp.asarray([True, False, True]))
    assert int(answers.count) == 2
    np.testing.assert_array_equal(answers.queried, [1, 1, 0, 0])
    np.testing.assert_array_equal(answers.difference[:, 0], [1, 3, 0, 0])
    answers = add_answers(answers, 10.0 * rows, first, jnp.ones(3, bool))
    assert int(answers.count) == 4
    np.testing.assert_array_equal(answers.difference[:, 0], [1, 3, 10, 20])
    np.testing.assert_array_equal(answers.first_preferred, [True, True, True, False])
    with pytest.raises(SpecificationError, match="query_budget = 0 must be at least one"):
        no_answers(0, 1)
