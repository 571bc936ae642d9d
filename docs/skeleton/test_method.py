"""Linear cloning against least squares, which it has to find: the test to copy with a method.

Say by a mark what it is compared with: a known answer (`oracle`), an independent implementation
(`parity`) or another method (`equivalence`). What every method keeps, `hw.testing.check_method`
asks by itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from headwater.methods.control.imitation.linear_cloning import LinearCloning

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces


@pytest.mark.oracle
def test_it_finds_least_squares():
    key = jax.random.key(0)
    observation = jax.random.normal(key, (64, 2))
    noise = 0.05 * jax.random.normal(jax.random.key(1), (64, 1))
    action = observation @ jnp.asarray([[0.3], [-0.2]]) + 0.1 + noise
    zeros = jnp.zeros(64)
    data = Transitions(observation, action, zeros, observation, zeros > 0, zeros > 0)
    spaces = Spaces(Box((-1.0, -1.0), (1.0, 1.0)), Box((-2.0,), (2.0,)))
    method = LinearCloning(learning_rate=0.02, weight_penalty=0.0)

    @jax.jit
    def learn(state):
        step = lambda state, key: method.update(state, data, key=key)
        return jax.lax.scan(step, state, jax.random.split(key, 1000))

    state, metrics = learn(method.init(spaces, key=key))
    columns = np.hstack([observation, np.ones((64, 1))])
    fit, *_ = np.linalg.lstsq(columns, np.asarray(action)[:, 0], rcond=None)
    np.testing.assert_allclose(state.policy.weight[0], fit[:2], atol=1e-3)
    np.testing.assert_allclose(state.policy.bias[0], fit[2], atol=1e-3)
    residual = np.std(np.asarray(action)[:, 0] - columns @ fit)
    np.testing.assert_allclose(np.exp(state.policy.log_std[0]), residual, rtol=0.01)
    assert metrics["policy_loss"][-1] < metrics["policy_loss"][0]
