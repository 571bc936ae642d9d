"""DQN, discrete CQL, AWAC and BC on discrete problems with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.awac import AWAC
from headwater.methods.control.offline.discrete_cql import DiscreteCQL
from headwater.methods.control.online.dqn import DQN

from .small_problems import (
    CHAIN_STATES,
    DISCOUNT,
    chain,
    chain_optimum,
    chain_values,
    greedy,
    trained,
    values,
)

FIELDS = {"discount": DISCOUNT, "learning_rate": 3e-3, "widths": (32,)}


@pytest.mark.parametrize(
    "method",
    [
        DQN(target_period=25, **FIELDS),
        DQN(target_rate=0.05, target_period=1, double=False, **FIELDS),
        DiscreteCQL(conservative_weight=0.0, target_period=25, **FIELDS),
    ],
    ids=["double, copied target", "plain, averaged target", "CQL without its penalty"],
)
def test_learns_the_optimal_values_of_a_chain(method):
    problem, data = chain()
    state = trained(method, problem, data, 2000)
    learned = np.asarray(values(method, state, data)).reshape(CHAIN_STATES, 2)
    np.testing.assert_allclose(learned, chain_optimum(), atol=0.02)
    best = greedy(method, state, jnp.eye(CHAIN_STATES))
    np.testing.assert_array_equal(best, chain_optimum().argmax(-1))


@pytest.mark.parametrize(("updates", "epsilon"), [(0, 1.0), (100, 0.55), (400, 0.1)])
def test_dqn_explores_less_with_every_update(updates, epsilon):
    method = DQN(exploration_updates=200.0, final_exploration=0.1, widths=(32,))
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


def _arms(counts, rewards) -> tuple[Spaces, Transitions]:
    """One-step episodes in one state: arm `i` was pulled `counts[i]` times for `rewards[i]`."""
    action = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    observation = np.ones((len(action), 1), np.float32)
    data = Transitions(
        observation=observation,
        action=action,
        reward=np.asarray(rewards, np.float32)[action],
        next_observation=np.full_like(observation, np.nan),
        terminal=np.ones(len(action), bool),
        truncated=np.zeros(len(action), bool),
    )
    return Spaces(Box((0.0,), (1.0,)), Discrete(len(counts))), jax.tree.map(jnp.asarray, data)


COUNTS, REWARDS = np.asarray([8, 4, 3, 1]), np.asarray([0.2, 0.5, -0.4, 0.3])


def test_conservative_values_are_lower_by_the_known_amount():
    # Where the derivative vanishes, Q(a) = r(a) - α (softmax(Q)(a) / behaviour(a) - 1).
    problem, data = _arms(COUNTS, REWARDS)
    weight, behaviour = 0.2, COUNTS / COUNTS.sum()
    q = REWARDS.copy()
    for _ in range(2000):
        probability = np.exp(q) / np.exp(q).sum()
        q += 0.05 * (REWARDS - weight * (probability / behaviour - 1) - q)
    method = DiscreteCQL(conservative_weight=weight, learning_rate=3e-3, widths=(32,))
    state = trained(method, problem, data, 2000)
    np.testing.assert_allclose(state.critic.values(jnp.ones(1)), q, atol=5e-3)
    assert q[3] < REWARDS[3] - 0.2


def test_conservative_values_stay_finite_for_an_arm_never_pulled():
    problem, data = _arms(np.asarray([8, 4, 4, 0]), np.asarray([0.0, 1.0, 0.0, 0.0]))
    method = DiscreteCQL(learning_rate=3e-3, widths=(32,))
    state = trained(method, problem, data, 500)
    q = np.asarray(state.critic.values(jnp.ones(1)))
    assert np.all(np.isfinite(q))
    assert q.argmin() == 3


def test_awac_weighs_the_behaviour_by_the_exponential_of_the_value():
    problem, data = _arms(COUNTS, REWARDS)
    method = AWAC(temperature=0.5, learning_rate=3e-3, widths=(32,))
    state = trained(method, problem, data, 2000)
    weight = COUNTS * np.exp(REWARDS / 0.5)
    probability = jax.nn.softmax(state.actor(jnp.ones(1)).logits)
    np.testing.assert_allclose(probability, weight / weight.sum(), atol=5e-3)
    best = method.value(state, jnp.ones(1), jnp.asarray(1, jnp.int32))
    np.testing.assert_allclose(best, REWARDS[1], atol=0.01)


def test_awac_evaluates_and_weighs_its_own_policy_on_a_chain():
    problem, data = chain()
    method = AWAC(temperature=0.5, target_rate=0.05, **FIELDS)
    state = trained(method, problem, data, 3000)
    policy = jax.nn.softmax(state.actor(jnp.eye(CHAIN_STATES)).logits)
    exact = chain_values(np.asarray(policy, np.float64))
    learned = np.asarray(values(method, state, data)).reshape(CHAIN_STATES, 2)
    np.testing.assert_allclose(learned, exact, atol=0.02)
    # The behaviour is uniform, so at the fixed point the policy is a softmax of its own values.
    np.testing.assert_allclose(policy, jax.nn.softmax(jnp.asarray(exact) / 0.5), atol=0.02)


def test_cloning_recovers_frequencies():
    problem, data = _arms(COUNTS, REWARDS)
    method = BC(learning_rate=3e-3, widths=(32,))
    state = trained(method, problem, data, 1500)
    probability = jax.nn.softmax(state.actor(jnp.ones(1)).logits)
    np.testing.assert_allclose(probability, COUNTS / COUNTS.sum(), atol=5e-3)
