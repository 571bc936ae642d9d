"""No-regret play against enumeration and the linear program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.constrained import hazard_rover, rover
from headwater.evaluation.constrained_planning import constrained_policy
from headwater.ops.tabular.approachability import (
    approach,
    approach_by_cone,
    constrained_by_approach,
    mixed_policy,
    vector_returns,
)
from headwater.ops.tabular.convex import Orthotope, distance, within_budgets
from headwater.ops.tabular.planning import occupancy
from headwater.parts.priced_planning import price_costs

ROVER = rover(("S000", "0P00", "000P", "0P0G"), horizon=8)
BOTH = jnp.concatenate([ROVER.reward[..., None], ROVER.cost], axis=-1)
BUDGET = 0.3
BEST = constrained_policy(ROVER, np.moveaxis(np.asarray(ROVER.cost), -1, 0), [BUDGET])


def test_returns_are_sums_over_paths():
    random = np.random.default_rng(0)
    process = FiniteProcess.from_arrays(
        random.dirichlet(np.ones(2), (2, 2, 2)), random.random((2, 2, 2)), [0.3, 0.7]
    )
    measured = random.random((2, 2, 2, 3)).astype(np.float32)
    policy = random.dirichlet(np.ones(2), (2, 2)).astype(np.float32)
    expected = np.zeros(3)
    for s in range(2):
        for a in range(2):
            chance = [0.3, 0.7][s] * policy[0, s, a]
            expected += chance * measured[0, s, a]
            for t in range(2):
                onward = chance * np.asarray(process.transition)[0, s, a, t]
                expected += onward * policy[1, t] @ measured[1, t]
    found = vector_returns(process, jnp.asarray(measured), jnp.asarray(policy))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def approached():
    target = within_budgets(BEST.value, 2.0, jnp.asarray([BUDGET]))
    return target, approach(ROVER, BOTH, target, rounds=200, largest=2.0)


def test_the_mixture_approaches_the_set(approached):
    target, found = approached
    gaps = np.asarray([float(distance(target, x)) for x in found.averages])
    assert gaps[0] > 0.2 and gaps[49] < 0.1 and gaps[-1] < 0.03
    np.testing.assert_allclose(found.averages[-1], found.achieved, atol=1e-4)


def test_one_policy_has_the_returns_of_the_mixture(approached):
    np.testing.assert_allclose(
        vector_returns(ROVER, BOTH, approached[1].policy), approached[1].achieved, atol=1e-5
    )


def test_the_first_steps_are_the_equations(approached):
    target, found = approached
    theta = np.zeros(2)
    for time in range(1, 6):
        values = np.zeros(ROVER.states)
        reward = -np.asarray(BOTH, np.float64) @ theta
        policy = np.zeros(ROVER.reward.shape, np.float32)
        for h in reversed(range(ROVER.horizon)):
            q = reward[h] + np.asarray(ROVER.transition[h], np.float64) @ values
            # Ties are told apart as the code does: the first of those that are equal.
            best = np.argmax(np.round(q, 6), axis=1)
            policy[h, np.arange(ROVER.states), best] = 1.0
            values = q.max(axis=1)
        returned = np.asarray(found.returns[time - 1], np.float64)
        # The response is best for its reward, whichever of the best it is.
        mine = np.asarray(vector_returns(ROVER, BOTH, jnp.asarray(policy)), np.float64)
        assert returned @ -theta == pytest.approx(mine @ -theta, abs=1e-4)
        far = np.asarray(target.farthest(jnp.asarray(theta, jnp.float32)), np.float64)
        theta = theta + (returned - far) / (2.0 * np.sqrt(time))
        theta /= max(np.linalg.norm(theta), 1.0)


def test_bisection_finds_the_optimum_of_the_linear_program():
    found = constrained_by_approach(
        ROVER, ROVER.cost, jnp.asarray([BUDGET]), highest=2.0, rounds=300, tolerance=0.005
    )
    assert float(found.achieved[0]) == pytest.approx(BEST.value, abs=0.03)
    assert float(found.achieved[1]) <= BUDGET + 0.006


def test_the_cone_s_mixture_reaches_a_set_with_no_upper_end_and_reuses_responses():
    process = hazard_rover(("S0P", "000", "P0G"), horizon=15)
    measured = jnp.concatenate([-process.cost, process.reward[..., None]], axis=-1)
    best = constrained_policy(process, np.moveaxis(np.asarray(process.cost), -1, 0), [0.1]).value
    target = Orthotope(jnp.asarray([-0.1, best - 0.005]), jnp.asarray([jnp.inf, jnp.inf]))
    fresh = approach_by_cone(process, measured, target, rounds=60, height=2.0)
    saved = approach_by_cone(process, measured, target, rounds=60, height=2.0, cached=8)
    for found in (fresh, saved):
        assert float(distance(target, found.achieved)) < 0.01
        np.testing.assert_allclose(
            vector_returns(process, measured, found.policy), found.achieved, atol=1e-5
        )
    assert float(fresh.planned.sum()) == 60.0 and float(saved.planned.sum()) < 20.0


def test_where_nothing_goes_the_mixture_is_uniform():
    policy = mixed_policy(jnp.asarray([[[0.0, 0.0], [0.1, 0.3]]]))
    np.testing.assert_allclose(policy, [[[0.5, 0.5], [0.25, 0.75]]], rtol=1e-6)


def _priced(objective, constraint, rounds=400, rate=0.05, limits=1):
    plan = jax.jit(
        lambda: price_costs(
            ROVER, jnp.zeros(limits), objective=objective, constraint=constraint, rounds=rounds,
            rate=rate,
        )
    )()  # fmt: skip
    return plan, np.asarray(vector_returns(ROVER, BOTH, plan.mixture))


def test_prices_are_the_linear_program_s_and_the_mixture_its_optimum():
    plan, found = _priced(lambda earned: earned, lambda spent: spent - BUDGET)
    assert found[0] == pytest.approx(BEST.value, abs=0.02)
    assert found[1] == pytest.approx(BUDGET, abs=0.03)
    assert float(plan.price[0]) == pytest.approx(BEST.price[0], abs=0.1)
    # Duality: no policy is worth more than the optimum at the optimal price.
    visited = np.asarray(occupancy(ROVER, plan.average), np.float64)
    worth = visited * (np.asarray(ROVER.reward) - BEST.price[0] * np.asarray(ROVER.cost)[..., 0])
    assert worth.sum() + BEST.price[0] * BUDGET <= BEST.value + 1e-4
    np.testing.assert_allclose([plan.mean_reward, plan.spent[0]], found, atol=1e-4)


def test_a_convex_limit_of_costs_is_the_budget_that_it_means():
    # spent² ≤ 0.09 is spent ≤ 0.3, and a root of the reward changes nothing about what is best.
    found = _priced(lambda earned: jnp.sqrt(earned + 0.1), lambda spent: spent**2 - BUDGET**2)[1]
    assert found[0] == pytest.approx(BEST.value, abs=0.03)
    assert found[1] == pytest.approx(BUDGET, abs=0.04)


def test_a_concave_objective_is_the_reward_where_more_is_worth_nothing():
    found = _priced(lambda earned: -jnp.square(jnp.maximum(0.6 - earned, 0.0)),
                    lambda spent: spent - BUDGET, rate=0.005)[1]  # fmt: skip
    assert found[0] >= 0.55 and found[1] <= BUDGET + 0.03
