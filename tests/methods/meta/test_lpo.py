"""Learned policy optimisation: without a drift it is the policy gradient; drifts are valid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProcess
from headwater.methods.meta.lpo import LPO, ClippingAgent
from headwater.networks.meta.drift import Drift
from headwater.parts.meta.agents import play

ARMS = 3
METHOD = LPO(episodes_per_update=8, num_epochs=1, drift_size=4, agent_learning_rate=0.5)
MEANS = jnp.asarray([[[0.9, 0.5, 0.1]]])
TASK = FiniteProcess(jnp.ones((*MEANS.shape, 1)), MEANS, jnp.ones(1))


@pytest.mark.parity
def test_without_a_drift_it_is_the_policy_gradient():
    drift = Drift(4, key=jax.random.key(0))
    none = jax.tree.map(jnp.zeros_like, drift)
    agent = ClippingAgent(jnp.asarray([[[0.2, 0.0, 0.4]]]), jnp.full((1, 1), 0.3))
    key = jax.random.key(1)
    policy = np.exp(agent.policy[0, 0]) / np.exp(agent.policy[0, 0]).sum()
    actions = np.asarray(play(TASK, jnp.asarray(policy)[None, None], 8, key=key).action)[:, 0]
    step = jax.jit(METHOD._step)
    moved = step(none, agent, TASK, jnp.asarray(0), jnp.asarray(5), key)
    advantage = np.asarray(MEANS)[0, 0, actions] - 0.3
    standard = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    gradient = (standard[:, None] * (np.eye(ARMS)[actions] - policy)).mean(axis=0)
    gradient *= min(1.0, 0.5 / np.linalg.norm(gradient))
    np.testing.assert_allclose(
        moved.policy[0, 0], np.asarray(agent.policy[0, 0]) + 0.5 * gradient, atol=1e-5
    )
    np.testing.assert_allclose(moved.value[0, 0], 0.3 + 0.3 * advantage.mean(), rtol=1e-5)


@pytest.mark.oracle
def test_a_drift_is_zero_and_flat_where_nothing_changed():
    drift = Drift(16, key=jax.random.key(2))
    advantage = jnp.linspace(-2.0, 2.0, 9)
    passed = jnp.asarray(0.4)

    def at(ratio):
        return drift(jnp.broadcast_to(ratio, advantage.shape), advantage, passed)

    np.testing.assert_array_equal(at(jnp.asarray(1.0)), np.zeros(9))
    np.testing.assert_array_equal(jax.jacobian(at)(jnp.asarray(1.0)), np.zeros(9))
    far = at(jnp.asarray(1.5))
    assert float(far.min()) >= 0.0 and float(far.max()) > 1e-3
    later = drift(jnp.full(9, 1.5), advantage, jnp.asarray(0.9))
    assert float(jnp.abs(later - far).max()) > 1e-6
