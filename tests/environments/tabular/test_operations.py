"""Inventory and queue: their models against the rules, step by step."""

import math

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.tabular.operations import (
    admission_control,
    inventory_control,
    profit_range,
)
from headwater.ops.tabular.planning import optimal_values


def test_inventory_follows_its_rules():
    given = {"price": 4.0, "order_cost": 1.0, "fixed_cost": 2.0, "holding_cost": 0.5}
    process = inventory_control(capacity=3, horizon=2, demand=[0.25, 0.5, 0.25], **given)
    low, high = profit_range(3, *given.values())
    # One unit in stock, two ordered: three held; 0, 1 or 2 are sold.
    assert np.allclose(process.transition[0, 1, 2], [0.0, 0.25, 0.5, 0.25])
    profit = -2.0 - 2 * 1.0
    profit += 0.25 * -0.5 * 3 + 0.5 * (4.0 - 0.5 * 2) + 0.25 * (8.0 - 0.5)
    assert np.isclose(float(process.reward[0, 1, 2]) * (high - low) + low, profit, atol=1e-4)
    # What does not fit is not paid for.
    assert np.allclose(process.reward[0, 3, 0], process.reward[0, 3, 2])
    assert np.all((process.reward >= 0.0) & (process.reward <= 1.0))


def test_poisson_demand_is_cut_at_a_full_store():
    process = inventory_control(capacity=2, demand=1.0)
    none, one = math.exp(-1.0), math.exp(-1.0)
    assert np.allclose(process.transition[0, 2, 0], [1.0 - none - one, one, none], atol=1e-6)


def test_the_best_inventory_policy_orders_less_the_more_there_is():
    plan = optimal_values(inventory_control(capacity=8, horizon=8, demand=3.0))
    order = np.argmax(np.asarray(plan.policy[0]), axis=-1)
    assert order[0] > 0 and np.all(np.diff(order) <= 0) and order[-1] == 0


def test_queue_follows_its_rules():
    queue = admission_control(
        capacity=2,
        horizon=1,
        arrival=0.5,
        service=(0.25, 1.0),
        fast_cost=0.1,
        waiting_cost=0.2,
        rejection_cost=0.3,
    )
    low = -(0.4 + 0.1 + 0.3)
    scale = 1.0 - low

    def earned(queue_length, action):
        return float(queue.reward[0, queue_length, action]) * scale + low

    assert np.allclose(queue.transition[0, 1, 0], [0.125, 0.5, 0.375])
    assert np.allclose(queue.transition[0, 1, 3], [1.0, 0.0, 0.0])
    assert np.isclose(earned(1, 0), 0.25 - 0.2, atol=1e-5)
    assert np.isclose(earned(1, 3), 1.0 - 0.2 - 0.1 - 0.5 * 0.3, atol=1e-5)
    # A full queue turns away whoever comes.
    assert np.isclose(earned(2, 0), 0.25 - 0.4 - 0.5 * 0.3, atol=1e-5)
    assert np.isclose(float(queue.transition[0, 0, 0, 0]), 0.5)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: inventory_control(capacity=0), "capacity = 0 must be at least one"),
        (lambda: inventory_control(price=-1.0), "price = -1 must not be negative"),
        (lambda: inventory_control(demand=[0.5, 0.4]), "add up to 1, not to 0.9"),
        (lambda: inventory_control(demand=0.0), "demand = 0 must be above zero"),
        (lambda: inventory_control(capacity=3, initial=4), "initial = 4 is not one of the states"),
        (lambda: admission_control(arrival=1.5), "arrival = 1.5 must be a probability"),
        (lambda: admission_control(horizon=0), "horizon = 0 must be at least one"),
    ],
)
def test_wrong_parameters_are_said(make, said):
    with pytest.raises(SpecificationError, match=said):
        make()
