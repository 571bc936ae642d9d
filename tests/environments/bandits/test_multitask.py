"""Bandits of several tasks against their equations in NumPy."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.bandits.multitask import ClusterBandit, SharedFeatureBandit

KEYS = jax.random.split(jax.random.key(0), 200)


def test_tasks_are_linear_in_the_same_features():
    bandit = SharedFeatureBandit(tasks=3, arms=4, feature_size=6, shared_size=2, seed=5)
    directions, weights = (np.asarray(x, np.float64) for x in bandit.reset())
    np.testing.assert_allclose(directions.T @ directions, np.eye(2), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1.0, rtol=1e-5)
    contexts, features = jax.vmap(lambda key: bandit.show(bandit.reset(), key=key))(KEYS)
    assert set(np.argmax(np.asarray(contexts), axis=1)) == {0, 1, 2}
    means = jax.vmap(lambda c, f: bandit.mean_reward(bandit.reset(), c, f))(contexts, features)
    for context, shown, mean in zip(*map(np.asarray, (contexts, features, means))):
        assert sorted(context) == [0.0, 0.0, 1.0]
        phi = np.abs(shown.astype(np.float64) @ directions) - np.sqrt(2 / np.pi)
        np.testing.assert_allclose(mean, phi @ weights[np.argmax(context)], atol=1e-5)
    noise = np.asarray(bandit.reward(means, key=KEYS[0]) - means)
    assert noise.std() == pytest.approx(0.5, rel=0.1) and abs(noise.mean()) < 0.06


def test_arms_of_a_cluster_earn_alike_in_a_task():
    bandit = ClusterBandit(tasks=2, arms=3, feature_size=4, clusters=5, spread=0.01, seed=1)
    centres, worth = (np.asarray(x, np.float64) for x in bandit.reset())
    seen = set()
    for key in KEYS[:40]:
        context, features = bandit.show(bandit.reset(), key=key)
        mean = np.asarray(bandit.mean_reward(bandit.reset(), context, features))
        near = [np.abs(centres - x).sum(1).argmin() for x in np.asarray(features)]
        np.testing.assert_allclose(mean, worth[int(np.argmax(context)), near], rtol=1e-6)
        seen |= set(near)
    assert seen == set(range(5))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(SpecificationError, match="shared_size = 4: there are no more orthogonal"):
        SharedFeatureBandit(feature_size=3, shared_size=4)
    with pytest.raises(SpecificationError, match="clusters = 0: it must be at least 1"):
        ClusterBandit(clusters=0)
