"""DQN against NumPy and on problems with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.online.dqn import DQN

from ..dqn_twin import FIELDS, expect_three_updates
from ..small_problems import (
    CHAIN_SETTINGS,
    chain,
    expect_optimal_chain_values,
    trained,
)


@pytest.mark.parity
@pytest.mark.parametrize("double", [True, False])
def test_three_updates(double):
    expect_three_updates(DQN(double_q=double, **FIELDS))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "method",
    [
        DQN(target_update_interval=25, **CHAIN_SETTINGS),
        DQN(polyak_rate=0.05, target_update_interval=1, double_q=False, **CHAIN_SETTINGS),
    ],
    ids=["double, copied target", "plain, averaged target"],
)
def test_it_learns_the_optimal_values_of_a_chain(method):
    expect_optimal_chain_values(method)


@pytest.mark.oracle
@pytest.mark.parametrize(("updates", "epsilon"), [(0, 1.0), (100, 0.55), (400, 0.1)])
def test_dqn_explores_less_with_every_update(updates, epsilon):
    method = DQN(exploration_decay_updates=200.0, final_exploration_rate=0.1, hidden_sizes=(32,))
    problem, data = chain()
    state = trained(method, problem, data, updates)
    observation = data.observation[0]
    best = method.act(state, observation, key=jax.random.key(0), explore=False)[0]
    likelihood = jnp.exp(method.log_probability(state, observation, best))
    np.testing.assert_allclose(likelihood, 1 - epsilon / 2, rtol=1e-4)
    other = jnp.exp(method.log_probability(state, observation, 1 - best))
    np.testing.assert_allclose(other, epsilon / 2, rtol=1e-4)
    keys = jax.random.split(jax.random.key(5), 4000)
    drawn = jax.vmap(lambda k: method.act(state, observation, key=k, explore=True)[0])(keys)
    np.testing.assert_allclose(np.mean(drawn == best), likelihood, atol=0.03)
