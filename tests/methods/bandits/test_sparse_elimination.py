"""Elimination over a sparse net: a plain loop over dense weights in float64, and its guarantee."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.environments.bandits.needle import NeedleBandit
from headwater.methods.bandits.sparse_elimination import SparseElimination
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls


def net(size, support_size, grid_size):
    """All weights on the grid, most of them not sparse, of which the sparse ones are kept."""
    grid = np.linspace(-1.0, 1.0, grid_size)
    every = np.asarray(list(itertools.product([*grid, 0.0], repeat=size)))
    sparse = np.sum(every != 0.0, axis=1) <= support_size
    half_step = 1.0 / (grid_size - 1)
    near = np.linalg.norm(every, axis=1) <= 1.0 + np.sqrt(support_size) * half_step + 1e-6
    return np.unique(every[sparse & near], axis=0)


def plain(features, rewards, candidates, tolerance, rounds):
    """The arm of every round."""
    left, arms = np.ones(len(candidates), bool), []
    predicted = features @ candidates.T
    for _ in range(rounds):
        best = np.max(np.where(left, predicted.max(axis=0), -np.inf))
        chosen = int(np.flatnonzero(left & (predicted.max(axis=0) == best))[0])
        arms.append(int(np.argmax(predicted[:, chosen])))
        left &= np.abs(rewards[arms[-1]] - predicted[arms[-1]]) <= tolerance
        assert left.any()
    return arms, left


def follow(method, features, rewards, rounds):
    """What the method pulls where `rewards` are what the arms earn, and its last state.

    All have the instances in front, so that one program plays them all.
    """
    key = jax.random.key(0)

    def play(shown, earned):
        def one(state, _):
            chosen = method.probabilities(state, jnp.zeros(0), shown, key=key, explore=True)
            arm = jnp.argmax(chosen).astype(jnp.int32)
            row = Pulls(jnp.zeros(0), shown, arm, earned[arm], chosen[arm])
            return method.update(state, jax.tree.map(lambda x: x[None], row), key=key)[0], arm

        start = method.init(Arms(shown.shape[0], 0, shown.shape[1], shown), key=key)
        return jax.lax.scan(one, start, None, length=rounds)

    given = (jnp.asarray(x, jnp.float32) for x in (features, rewards))
    state, arms = jax.jit(jax.vmap(play))(*given)
    return np.asarray(arms), np.asarray(state.excess)


def nearly_linear(seed, arms, size, support_size, error):
    """Features of length one, and rewards within `error` of sparse linear ones."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(arms, size))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.zeros(size)
    weights[draw.permutation(size)[:support_size]] = draw.normal(size=support_size)
    weights /= np.linalg.norm(weights)
    # The worst that can be within the error: the best arms are hidden, the others praised.
    exact = features @ weights
    return features, exact - error * np.sign(exact - np.quantile(exact, 0.8))


def several(seeds, *arguments):
    """Instances of `nearly_linear`, stacked."""
    drawn = [nearly_linear(seed, *arguments) for seed in seeds]
    return tuple(np.stack(column) for column in zip(*drawn))


@pytest.mark.parity
def test_it_pulls_what_a_plain_loop_over_all_weights_pulls():
    features, rewards = several(range(4), 30, 5, 2, 0.2)
    method = SparseElimination(support_size=2, grid_size=9, tolerance=0.4)
    arms, excess = follow(method, features, rewards, 40)
    for i in range(4):
        expected, left = plain(features[i], rewards[i], net(5, 2, 9), 0.4, 40)
        np.testing.assert_array_equal(arms[i], expected)
        assert len(set(expected)) > 1 and not left.all()
        # Some weights stand in the net several times, on supports with a zero in them.
        assert 0 < left.sum() <= (excess[i] <= 1.0).sum() < excess.shape[1]


@pytest.mark.oracle
def test_the_last_arm_is_as_good_as_the_guarantee_says():
    error = 0.15
    # Steps of the grid at most the error over √2.
    method = SparseElimination(support_size=2, grid_size=20, tolerance=2 * error)
    features, rewards = several(range(100, 120), 60, 6, 2, error)
    arms, excess = follow(method, features, rewards, 60)
    assert np.all(excess.min(axis=1) <= 1.0)
    assert np.all(arms[:, -5:] == arms[:, -1:])
    gaps = rewards.max(axis=1) - rewards[np.arange(20), arms[:, -1]]
    assert gaps.max() <= 3.5 * error
    # The errors do matter: without any the best arm would always be the last one.
    assert gaps.max() > 0.0


@pytest.mark.oracle
@pytest.mark.parametrize("noisy", [False, True])
def test_a_sparse_needle_takes_at_most_a_query_for_each_feature(noisy):
    bandit = NeedleBandit(arms=60, feature_size=6, noisy=noisy, seed=3)
    # Sixteen pulls of the needle earn less than 0.55 on average once in a million times.
    source = LivePulls(bandit, batch_size=16 if noisy else 1)
    learned = jax.jit(
        lambda key: learn(
            SparseElimination(), bandit.problem, source, 12,
            measure=lambda agent, data: {"arm": data.arm[0], "regret": data.regret[0]},
            every=1, key=key,
        )
    )(jax.random.key(1))  # fmt: skip
    regret, arms = (np.asarray(learned.sums[x]) for x in ("regret", "arm"))
    features, means = (np.asarray(x) for x in bandit.reset())
    needle = int(np.argmax(means))
    # Aligned arms are tried one after the other in the order of their features.
    tried = [int(np.argmax(features[:, j])) for j in range(6)]
    count = tried.index(needle) + 1
    assert count > 1
    np.testing.assert_array_equal(arms, [*tried[:count], *[needle] * (12 - count)])
    np.testing.assert_allclose(regret[count:], 0.0)
    np.testing.assert_allclose(regret[: count - 1], 0.95, rtol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("dense", [False, True])
def test_needles_are_nearly_linear(dense):
    """The bandit itself."""
    bandit = NeedleBandit(arms=200, feature_size=12, misspecification=0.25, dense=dense, seed=5)
    features, means = (np.asarray(x, np.float64) for x in jax.jit(lambda: bandit.reset())())
    needle = int(np.argmax(means))
    assert np.sum(means > 0.0) == 1
    weights = features[needle] if dense else np.eye(12)[int(np.argmax(features[needle]))]
    assert np.max(np.abs(features @ weights - means)) <= 0.25 + 1e-5
    assert np.max(np.linalg.norm(features, axis=1)) <= 1.0 + 1e-5
    assert means[needle] == pytest.approx(1.0 if dense else 0.95, abs=1e-5)


def test_what_it_cannot_do_is_said_before_it_starts():
    key = jax.random.key(0)
    with pytest.raises(SpecificationError, match="would keep 4,060,000 candidates"):
        SparseElimination(support_size=3, grid_size=10).init(Arms(9, 0, 30), key=key)
    with pytest.raises(SpecificationError, match="arms have only 2 features"):
        SparseElimination(support_size=3).init(Arms(9, 0, 2), key=key)
    with pytest.raises(SpecificationError, match="needs an arm"):
        NeedleBandit(arms=10, feature_size=20)
