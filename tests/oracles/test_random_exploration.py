"""GOLF keeps the truth; GORP and SQIRL solve what their effective horizon says they can."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import combination_lock
from headwater.evaluation.instances import Worth, learn_instances
from headwater.methods.tabular.online.m_golf import MGOLF
from headwater.methods.tabular.online.sqirl import SQIRL
from headwater.ops.tabular.planning import optimal_values
from headwater.ops.tabular.value_class import value_class_of


class _Kept:
    """Whether the first candidate is alive."""

    def __call__(self, agent, data):
        return {"kept": agent.state.alive[0].astype(jnp.float32)}


def test_version_space_keeps_the_truth_as_often_as_promised():
    """Over many seeds of a noisy process, with half of the radius that the default has."""
    generator = np.random.default_rng(0)
    shape = 20, 2, 2, 2
    rows = generator.dirichlet(np.ones(2), shape[:-1])[:, None].repeat(2, 1)
    reward = generator.random((20, 1, 2, 2)).repeat(2, 1) / 2.0
    models = FiniteProcess(
        jnp.asarray(rows, jnp.float32),
        jnp.asarray(reward, jnp.float32),
        jnp.broadcast_to(jnp.asarray([0.5, 0.5]), (20, 2)),
    )
    truth = jax.tree.map(lambda x: x[0], models)
    given = value_class_of(models, truth.problem())
    # The truth comes first, and it is its own backup.
    best = np.asarray(optimal_values(truth).action_value)
    np.testing.assert_allclose(given.candidates[0], best, atol=1e-6)
    for step in range(2):
        assert np.abs(np.asarray(given.helpers)[:, step] - best[step]).max((1, 2)).min() < 1e-5
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 200), (truth, given))
    method = MGOLF(memory=0, radius_scale=0.5, failure_probability=0.5, episodes=1.0)
    kept = learn_instances(method, *stacked, _Kept(), updates=60, key=jax.random.key(0))["kept"]
    assert kept.min(axis=1).mean() >= 0.5
    # A radius of nothing would lose it: the test can fail.
    method = MGOLF(memory=0, radius_scale=1e-4, failure_probability=0.5, episodes=1.0)
    lost = learn_instances(method, *stacked, _Kept(), updates=60, key=jax.random.key(0))["kept"]
    assert lost.min(axis=1).mean() < 0.5


def test_sqirl_opens_a_lock():
    process = combination_lock(horizon=3, actions=2, key=jax.random.key(0))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 20), process)
    problems = jax.tree.map(lambda x: jnp.stack([x] * 20), process.problem())
    found = learn_instances(
        SQIRL(depth=1, samples=64), stacked, problems, Worth(stacked), updates=3,
        key=jax.random.key(0),
    )["return"]  # fmt: skip
    assert found[:, -1].mean() > 0.9 and found.shape == (20, 4)
