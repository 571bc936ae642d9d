"""Pessimistic plans against random policies and against a linear programme."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

from headwater.environments.linear.linear_reward import random_linear_rewards
from headwater.ops.linear.pessimistic_planning import plan_against_ellipsoid, plan_against_rewards
from headwater.ops.tabular.planning import occupancy, optimal_values

TASK = random_linear_rewards(states=3, actions=2, horizon=3, features=2, key=jax.random.key(0))


PROCESS, KEY = TASK.process, jax.random.key(1)


FEATURES = np.asarray(TASK.features, np.float64)


def worst_case(policy, weights, precision, width, reference) -> float:
    occupied = np.asarray(occupancy(PROCESS, jnp.asarray(policy)), np.float64)
    away = np.einsum("hsa,hsaf->f", occupied, FEATURES) - reference
    return away @ weights - width * np.sqrt(away @ np.linalg.inv(precision) @ away)


def test_ellipsoid_plan_is_the_best_of_all_policies():
    random = np.random.default_rng(0)
    weights, reference = np.asarray([1.0, -0.5]), np.asarray([0.2, 0.1])
    precision = np.asarray([[3.0, 0.5], [0.5, 1.0]])
    nothing = replace(PROCESS, reward=jnp.zeros_like(PROCESS.reward))

    @jax.jit
    def plan(width):
        return plan_against_ellipsoid(
            nothing,
            TASK.features,
            weights=jnp.asarray(weights, jnp.float32),
            precision=jnp.asarray(precision, jnp.float32),
            width=width,
            reference=jnp.asarray(reference, jnp.float32),
            iterations=40,
        )

    others = random.dirichlet(np.full(2, 0.2), (300, 3, 3)).astype(np.float32)
    for width in (0.0, 0.3, 1.0, 3.0):
        found = plan(width)
        by_hand = worst_case(found.policy, weights, precision, width, reference)
        np.testing.assert_allclose(found.value, by_hand, atol=1e-4)
        assert float(found.gap) < 0.01
        best = max(worst_case(p, weights, precision, width, reference) for p in others)
        assert best <= by_hand + float(found.gap) + 1e-4
    known = replace(PROCESS, reward=jnp.asarray(FEATURES @ weights, jnp.float32))
    best = float(known.initial @ optimal_values(known).value[0]) - reference @ weights
    np.testing.assert_allclose(plan(0.0).value, best, rtol=1e-4)


def test_plan_against_rewards_is_the_linear_programme():
    random = np.random.default_rng(1)
    rewards, offset = random.normal(size=(4, 3, 3, 2)), random.normal(size=4)
    possible = np.asarray([True, True, False, True])
    found = plan_against_rewards(
        PROCESS,
        jnp.asarray(rewards, jnp.float32),
        reference=jnp.asarray(offset, jnp.float32),
        possible=jnp.asarray(possible),
        iterations=2000,
    )
    # Variables: occupancy, then the worst case; flow in equals flow out.
    transition = np.asarray(PROCESS.transition, np.float64)
    flow, goal = np.zeros((9, 19)), np.zeros(9)
    for h in range(3):
        for s in range(3):
            row, index = 3 * h + s, lambda h, s, a: 6 * h + 2 * s + a
            for a in range(2):
                flow[row, index(h, s, a)] += 1.0
                for before in range(3) if h else ():
                    flow[row, index(h - 1, before, a)] -= transition[h - 1, before, a, s]
            goal[row] = 0.0 if h else float(PROCESS.initial[s])
    below = np.concatenate([-rewards.reshape(4, -1), np.ones((4, 1))], axis=1)[possible]
    cost = np.zeros(19)
    cost[-1] = -1.0
    bounds = [(0, None)] * 18 + [(None, None)]
    exact = linprog(cost, below, -offset[possible], flow, goal, bounds).x[-1]
    assert float(found.value) <= exact + 1e-4 <= float(found.value + found.gap) + 2e-4
    assert float(found.gap) < 0.1
