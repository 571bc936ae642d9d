"""The linear program against enumeration, closed forms and duality."""

import itertools

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.evaluation.constrained_planning import constrained_policy
from headwater.ops.tabular.planning import expected_return, occupancy, optimal_values

HORIZON, STATES, ACTIONS = 2, 2, 2


def _tiny(seed):
    random = np.random.default_rng(seed)
    process = FiniteProcess.from_arrays(
        random.dirichlet(np.ones(STATES), (HORIZON, STATES, ACTIONS)),
        random.random((HORIZON, STATES, ACTIONS)),
        random.dirichlet(np.ones(STATES)),
    )
    return process, random.random((1, HORIZON, STATES, ACTIONS))


def _points(process, cost):
    """Cost and return of every deterministic policy."""
    for choice in itertools.product(range(ACTIONS), repeat=HORIZON * STATES):
        policy = np.eye(ACTIONS, dtype=np.float32)[np.reshape(choice, (HORIZON, STATES))]
        visited = np.asarray(occupancy(process, policy), np.float64)
        yield (visited * cost).sum(), (visited * np.asarray(process.reward)).sum()


@pytest.mark.parametrize("seed", range(3))
def test_the_best_is_a_mixture_of_two_deterministic_policies(seed):
    process, cost = _tiny(seed)
    points = list(_points(process, cost[0]))
    least, free = min(points)[0], max(points, key=lambda point: point[1])[0]
    budget = least + 0.4 * (free - least)
    best = max(reward for spent, reward in points if spent <= budget)
    for (cheap, low), (costly, high) in itertools.product(points, points):
        if cheap <= budget < costly:
            share = (budget - cheap) / (costly - cheap)
            best = max(best, (1.0 - share) * low + share * high)
    plan = constrained_policy(process, cost, [budget])
    assert plan.value == pytest.approx(best, rel=1e-5)
    assert plan.spent[0] == pytest.approx(budget, rel=1e-5)
    # The policy, not only its occupancy, earns and spends this.
    policy = plan.policy.astype(np.float32)
    assert float(expected_return(process, policy)) == pytest.approx(best, rel=1e-5)
    visited = np.asarray(occupancy(process, policy))
    np.testing.assert_allclose(visited, plan.occupancy, atol=1e-6)
    assert (visited * cost[0]).sum() == pytest.approx(budget, rel=1e-5)


def test_the_price_is_the_slope_of_the_value():
    process, cost = _tiny(0)
    points = list(_points(process, cost[0]))
    least, free = min(points)[0], max(points, key=lambda point: point[1])[0]
    budget = least + 0.4 * (free - least)
    plan = constrained_policy(process, cost, [budget])
    more = constrained_policy(process, cost, [budget + 1e-4])
    assert plan.price[0] == pytest.approx((more.value - plan.value) / 1e-4, rel=1e-3)


def test_a_loose_budget_changes_nothing():
    process, cost = _tiny(1)
    plan = constrained_policy(process, cost, [100.0])
    best = optimal_values(process)
    assert plan.value == pytest.approx(float(best.value[0] @ process.initial), rel=1e-5)
    np.testing.assert_allclose(plan.policy, best.policy, atol=1e-6)
    assert plan.price[0] == 0.0


def test_a_budget_of_half_takes_the_costly_action_half_of_the_time():
    process = FiniteProcess.from_arrays(np.ones((1, 2, 1)), [[0.0, 1.0]], horizon=1)
    plan = constrained_policy(process, [[[[0.0, 1.0]]]], [0.5])
    np.testing.assert_allclose(plan.policy, [[[0.5, 0.5]]])
    assert (plan.value, plan.spent.tolist(), plan.price.tolist()) == (0.5, [0.5], [1.0])


def test_states_that_are_never_reached_get_a_uniform_policy():
    process = FiniteProcess.from_arrays(np.stack([np.eye(2)] * 2, 1), np.eye(2), 0, horizon=2)
    plan = constrained_policy(process, np.zeros((0, 2, 2, 2)), [])
    np.testing.assert_allclose(plan.policy[:, 1], np.full((2, 2), 0.5))
    np.testing.assert_allclose(plan.policy[:, 0], [[1.0, 0.0]] * 2)


def test_budgets_that_nobody_keeps_to_are_named():
    process = FiniteProcess.from_arrays(np.ones((1, 2, 1)), [[0.0, 1.0]], horizon=2)
    cost = np.broadcast_to([0.25, 1.0], (1, 2, 1, 2))
    message = r"budget 0 = 0.25: the lowest expected cost of any policy is 0.5$"
    with pytest.raises(SpecificationError, match=message):
        constrained_policy(process, cost, [0.25])
    both = np.concatenate([cost, np.broadcast_to([1.0, 0.25], (1, 2, 1, 2))])
    with pytest.raises(SpecificationError, match="each of the 2 budgets can be kept to, but no"):
        constrained_policy(process, both, [0.6, 0.6])


@pytest.mark.parametrize(
    ("costs", "budgets", "message"),
    [
        (np.zeros((1, 2, 2)), [1.0], r"costs have shape \(1, 2, 2\) and budgets \(1,\)"),
        (np.zeros((2, 2, 1, 2)), [1.0], r"must be \(constraint, 2, 1, 2\) and \(constraint,\)"),
        (np.zeros((1, 2, 1, 2)), [np.nan], "must be finite numbers"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(costs, budgets, message):
    process = FiniteProcess.from_arrays(np.ones((1, 2, 1)), [[0.0, 1.0]], horizon=2)
    with pytest.raises(SpecificationError, match=message):
        constrained_policy(process, costs, budgets)
