"""Discrete CQL against NumPy, against DQN, and on problems with known answers."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.offline.discrete_cql import DiscreteCQL
from headwater.methods.control.online.dqn import DQN

from .. import identities
from ..dqn_twin import FIELDS, expect_three_updates
from ..small_problems import (
    CHAIN_SETTINGS,
    COUNTS,
    REWARDS,
    arms,
    expect_optimal_chain_values,
    trained,
)


@pytest.mark.parity
@pytest.mark.parametrize("double", [True, False])
def test_three_updates(double):
    method = DiscreteCQL(double_q=double, conservative_weight=0.6, **FIELDS)
    expect_three_updates(method, weight=0.6)


@pytest.mark.equivalence("DQN")
def test_without_its_penalty_it_is_dqn():
    fields = {"learning_rate": 1e-2, "target_update_interval": 2, "hidden_sizes": identities.WIDTHS}
    spaces = identities.problem(True)
    dqn, cql = DQN(**fields), DiscreteCQL(conservative_weight=0.0, **fields)
    begun, batches = identities.begin(dqn, spaces), identities.several(True)
    one = identities.learn(dqn, begun, *batches)
    other = identities.learn(cql, identities.begin(cql, spaces), *batches)
    identities.expect_same(one.critic, other.critic, 1e-6)
    identities.expect_same(one.target, other.target, 1e-6)
    identities.expect_different(begun.critic, one.critic)


@pytest.mark.oracle
def test_without_its_penalty_it_learns_the_optimal_values_of_a_chain():
    expect_optimal_chain_values(
        DiscreteCQL(conservative_weight=0.0, target_update_interval=25, **CHAIN_SETTINGS)
    )


@pytest.mark.oracle
def test_conservative_values_are_lower_by_the_known_amount():
    # Where the derivative vanishes, Q(a) = r(a) - α (softmax(Q)(a) / behaviour(a) - 1).
    problem, data = arms(COUNTS, REWARDS)
    weight, behaviour = 0.2, COUNTS / COUNTS.sum()
    q = REWARDS.copy()
    for _ in range(2000):
        probability = np.exp(q) / np.exp(q).sum()
        q += 0.05 * (REWARDS - weight * (probability / behaviour - 1) - q)
    method = DiscreteCQL(conservative_weight=weight, learning_rate=3e-3, hidden_sizes=(32,))
    state = trained(method, problem, data, 2000)
    np.testing.assert_allclose(state.critic.values(jnp.ones(1)), q, atol=5e-3)
    assert q[3] < REWARDS[3] - 0.2


@pytest.mark.oracle
def test_conservative_values_stay_finite_for_an_arm_never_pulled():
    problem, data = arms(np.asarray([8, 4, 4, 0]), np.asarray([0.0, 1.0, 0.0, 0.0]))
    method = DiscreteCQL(learning_rate=3e-3, hidden_sizes=(32,))
    state = trained(method, problem, data, 500)
    q = np.asarray(state.critic.values(jnp.ones(1)))
    assert np.all(np.isfinite(q))
    assert q.argmin() == 3
