"""Planning against enumeration of policies, NumPy written out, and linear programs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.planning import (
    expected_return,
    occupancy,
    optimal_values,
    policy_values,
    robust_values,
    soft_values,
    uniform_policy,
)

HORIZON, STATES, ACTIONS = 3, 3, 2


def tiny(seed, horizon=HORIZON, states=STATES, actions=ACTIONS):
    """A small random process, made with NumPy alone."""
    random = np.random.default_rng(seed)
    return FiniteProcess.from_arrays(
        random.dirichlet(np.ones(states), (horizon, states, actions)),
        random.random((horizon, states, actions)),
        random.dirichlet(np.ones(states)),
    )


def some_policy(seed, shape=(HORIZON, STATES, ACTIONS)):
    """A stochastic policy."""
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:2]).astype(np.float32)


def by_hand(process, policy):
    """State and action values of a policy with three loops, in double precision."""
    transition, reward, probabilities = (
        np.asarray(x, np.float64) for x in (process.transition, process.reward, policy)
    )
    horizon, states, actions = reward.shape
    value, action_value = np.zeros((horizon + 1, states)), np.zeros(reward.shape)
    for h in reversed(range(horizon)):
        for s in range(states):
            for a in range(actions):
                following = sum(transition[h, s, a, t] * value[h + 1, t] for t in range(states))
                action_value[h, s, a] = reward[h, s, a] + following
            value[h, s] = sum(
                probabilities[h, s, a] * action_value[h, s, a] for a in range(actions)
            )
    return value, action_value


def all_deterministic(horizon=HORIZON, states=STATES, actions=ACTIONS):
    """Every deterministic policy, one by one."""
    for choice in itertools.product(range(actions), repeat=horizon * states):
        yield np.eye(actions, dtype=np.float32)[np.reshape(choice, (horizon, states))]


@pytest.mark.parametrize("seed", range(2))
def test_no_deterministic_policy_is_better_than_the_optimal_one(seed):
    process = tiny(seed)
    every = jnp.asarray(np.stack(list(all_deterministic())))
    assert every.shape[0] == 2**9
    values = jax.vmap(lambda p: policy_values(process, p).value)(every)
    plan = optimal_values(process)
    np.testing.assert_allclose(plan.value, np.max(values, axis=0), rtol=1e-5)
    best = every[np.argmax(values[:, 0] @ process.initial)]
    np.testing.assert_array_equal(plan.policy, best)


def test_values_are_those_written_out():
    process, policy = tiny(0), some_policy(1)
    value, action_value = by_hand(process, policy)
    plan = policy_values(process, policy)
    np.testing.assert_allclose(plan.value, value, rtol=1e-5)
    np.testing.assert_allclose(plan.action_value, action_value, rtol=1e-5)
    np.testing.assert_array_equal(plan.policy, policy)
    total = value[0] @ np.asarray(process.initial, np.float64)
    assert float(expected_return(process, policy)) == pytest.approx(total, rel=1e-5)


def test_the_best_policy_is_worth_its_values():
    plan = optimal_values(tiny(3))
    value, action_value = by_hand(tiny(3), plan.policy)
    np.testing.assert_allclose(plan.value, value, rtol=1e-5)
    np.testing.assert_allclose(plan.action_value, action_value, rtol=1e-5)


def test_equally_good_actions_give_the_first():
    process = FiniteProcess.from_arrays(np.ones((1, 3, 1)), np.ones((1, 3)), horizon=2)
    assert optimal_values(process).policy.tolist() == [[[1.0, 0.0, 0.0]]] * 2


def test_occupancy_is_a_distribution_that_reproduces_the_value():
    process, policy = tiny(0), some_policy(1)
    visited = occupancy(process, policy)
    np.testing.assert_allclose(visited.sum(axis=(1, 2)), np.ones(HORIZON), rtol=1e-6)
    total = float(jnp.sum(visited * process.reward))
    assert total == pytest.approx(float(expected_return(process, policy)), rel=1e-5)
    here = np.asarray(process.initial, np.float64)
    for h in range(HORIZON):
        np.testing.assert_allclose(visited[h], here[:, None] * policy[h], rtol=1e-5)
        following = np.zeros(STATES)
        for s, a, t in np.ndindex(STATES, ACTIONS, STATES):
            following[t] += here[s] * policy[h, s, a] * process.transition[h, s, a, t]
        here = following


def test_soft_values_are_those_written_out():
    process, temperature = tiny(0), 0.3
    plan = soft_values(process, temperature)
    value = np.zeros(STATES)
    for h in reversed(range(HORIZON)):
        action_value = np.asarray(process.reward[h]) + np.asarray(process.transition[h]) @ value
        value = temperature * np.log(np.exp(action_value / temperature).sum(axis=-1))
        np.testing.assert_allclose(plan.value[h], value, rtol=1e-5)
        probabilities = np.exp((action_value - value[:, None]) / temperature)
        np.testing.assert_allclose(plan.policy[h], probabilities, rtol=1e-4)


def test_soft_values_are_reward_plus_entropy_of_their_policy():
    process, temperature = tiny(4), 0.3
    plan = soft_values(process, temperature)
    entropy = -np.sum(plan.policy * np.log(plan.policy), axis=-1, keepdims=True)
    bonus = process.reward + temperature * jnp.broadcast_to(entropy, process.reward.shape)
    rewarded = FiniteProcess(process.transition, bonus, process.initial)
    np.testing.assert_allclose(plan.value, by_hand(rewarded, plan.policy)[0], rtol=1e-5)


def test_soft_at_no_temperature_is_optimal():
    process = tiny(0)
    soft, best = soft_values(process, 1e-5), optimal_values(process)
    np.testing.assert_allclose(soft.value, best.value, rtol=1e-4)
    np.testing.assert_allclose(soft.policy, best.policy, atol=1e-4)


def test_soft_at_high_temperature_is_uniform():
    process = tiny(0)
    np.testing.assert_allclose(soft_values(process, 1e4).policy, uniform_policy(process), atol=1e-3)


def worst_by_program(row, following, radius):
    """The smallest expectation within a total variation ball, as a linear program.

    Its variables are the distribution and the absolute differences from `row`.
    """
    size = len(row)
    same, nothing = np.eye(size), np.zeros(size)
    above = np.block([[same, -same], [-same, -same], [nothing, np.ones(size)]])
    limits = np.concatenate([row, -row, [2.0 * radius]])
    total = np.concatenate([np.ones(size), nothing])[None]
    objective = np.concatenate([following, nothing])
    return linprog(objective, A_ub=above, b_ub=limits, A_eq=total, b_eq=[1.0]).fun


@pytest.mark.parametrize("radius", [0.05, 0.3, 0.8, 1.0])
def test_robust_values_are_those_of_linear_programs(radius):
    process = tiny(5, states=4)
    plan = robust_values(process, radius)
    value = np.zeros(4)
    for h in reversed(range(HORIZON)):
        action_value = np.asarray(process.reward[h], np.float64)
        for s, a in np.ndindex(4, ACTIONS):
            row = np.asarray(process.transition[h, s, a], np.float64)
            action_value[s, a] += worst_by_program(row / row.sum(), value, radius)
        value = action_value.max(axis=-1)
        np.testing.assert_allclose(plan.action_value[h], action_value, rtol=1e-5)
        np.testing.assert_allclose(plan.value[h], value, rtol=1e-5)


def test_robust_at_no_radius_is_optimal():
    robust, best = robust_values(tiny(0), 0.0), optimal_values(tiny(0))
    np.testing.assert_allclose(robust.value, best.value, rtol=1e-6)
    np.testing.assert_array_equal(robust.policy, best.policy)


def test_every_row_can_have_its_own_radius():
    process = tiny(0)
    radius = jnp.zeros_like(process.reward).at[-2, 1, 0].set(1.0)
    changed = robust_values(process, radius).action_value - optimal_values(process).action_value
    assert float(changed[-2, 1, 0]) < -0.01
    assert jnp.abs(changed[-2]).at[1, 0].set(0.0).max() < 1e-6
    # Of the last step nothing follows, so its radius means nothing.
    last = robust_values(process, jnp.zeros_like(process.reward).at[-1].set(1.0))
    np.testing.assert_allclose(last.value, optimal_values(process).value, rtol=1e-6)


def test_stacked_processes_are_planned_for_at_once():
    apart = [tiny(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *apart)
    together = jax.vmap(optimal_values)(stacked)
    worst = jax.vmap(robust_values, (0, None))(stacked, 0.2)
    returns = jax.vmap(expected_return)(stacked, together.policy)
    for i, process in enumerate(apart):
        plan = optimal_values(process)
        np.testing.assert_allclose(together.value[i], plan.value, rtol=1e-6)
        np.testing.assert_allclose(worst.value[i], robust_values(process, 0.2).value, rtol=1e-6)
        assert float(returns[i]) == pytest.approx(float(plan.value[0] @ process.initial), rel=1e-5)


def test_a_policy_of_other_sizes_is_refused():
    policy = some_policy(0, (HORIZON + 1, STATES, ACTIONS))
    for function in (policy_values, occupancy, expected_return):
        with pytest.raises(SpecificationError, match=r"the policy has shape \(4, 3, 2\), but"):
            function(tiny(0), policy)
