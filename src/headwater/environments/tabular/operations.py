"""Finite processes of operations research, built from their parameters."""

import math
from collections.abc import Sequence

import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import require_sizes


def inventory_control(
    *,
    capacity: int = 10,
    horizon: int = 12,
    demand: Sequence[float] | float = 4.0,
    price: float = 5.0,
    order_cost: float = 2.0,
    fixed_cost: float = 3.0,
    holding_cost: float = 0.5,
    initial: int = 0,
) -> FiniteProcess:
    """Order goods each period, before a random demand; unmet demand is lost.

    State: units in stock. Action: units ordered; what does not fit is neither taken nor paid for.
    A period earns `price` for each unit sold, less what was paid for ordering and for holding the
    rest overnight; profits are moved and scaled into [0, 1], so an episode of expected return R
    makes a profit of `horizon * low + R * (high - low)`, with `low`, `high` from `profit_range`.

    **Arguments:** `capacity`: of the store, in units; `demand`: the probabilities of a demand of 0,
    1, … units, or the mean of a Poisson demand; `initial`: units in stock at the start.

    Raises `SpecificationError` for sizes below one, a negative price or cost, or probabilities that
    do not add up to one.
    """
    require_sizes(capacity=capacity, horizon=horizon)
    for name, value in (("price", price), ("order_cost", order_cost), ("fixed_cost", fixed_cost)):
        if not value >= 0.0:
            raise SpecificationError(f"{name} = {value:g} must not be negative")
    probabilities = _demand_probabilities(demand, capacity)
    stock = np.arange(capacity + 1)
    transition = np.zeros((capacity + 1,) * 3)
    profit = np.zeros((capacity + 1, capacity + 1))
    for here in stock:
        for order in stock:
            taken = min(order, capacity - here)
            held = here + taken
            paid = order_cost * taken + fixed_cost * (taken > 0)
            for demanded, chance in enumerate(probabilities):
                sold = min(held, demanded)
                transition[here, order, held - sold] += chance
                profit[here, order] += chance * (price * sold - holding_cost * (held - sold))
            profit[here, order] -= paid
    low, high = profit_range(capacity, price, order_cost, fixed_cost, holding_cost)
    return FiniteProcess.from_arrays(
        transition, (profit - low) / (high - low), initial, horizon=horizon
    )


def profit_range(
    capacity: int, price: float, order_cost: float, fixed_cost: float, holding_cost: float
) -> tuple[float, float]:
    """The lowest and the highest profit that a period can make."""
    worst = -fixed_cost - order_cost * capacity - holding_cost * capacity
    return worst, price * capacity


def admission_control(
    *,
    capacity: int = 12,
    horizon: int = 30,
    arrival: float = 0.6,
    service: tuple[float, float] = (0.4, 0.7),
    fast_cost: float = 0.25,
    waiting_cost: float = 0.05,
    rejection_cost: float = 0.4,
) -> FiniteProcess:
    """A queue with one server: admit or reject who arrives, and serve slowly or fast.

    State: customers in the queue. Actions: 0 admits and serves slowly, 1 admits and serves fast,
    2 and 3 reject and serve slowly or fast. In each step somebody arrives with probability
    `arrival`, and a customer, if there is one, is served with the probability of the speed. Costs:
    each customer waiting, serving fast, rejecting who arrives (also because the queue is full);
    a customer served earns one. Rewards are moved and scaled into [0, 1].

    Raises `SpecificationError` for sizes below one or probabilities outside of [0, 1].
    """
    require_sizes(capacity=capacity, horizon=horizon)
    for name, chance in (("arrival", arrival), ("service", service[0]), ("service", service[1])):
        if not 0.0 <= chance <= 1.0:
            raise SpecificationError(f"{name} = {chance:g} must be a probability")
    low = -(waiting_cost * capacity + fast_cost + rejection_cost)
    transition = np.zeros((capacity + 1, 4, capacity + 1))
    reward = np.zeros((capacity + 1, 4))
    for queue in range(capacity + 1):
        for action in range(4):
            admits, fast = action < 2, action % 2
            served = service[fast] if queue else 0.0
            enters = admits and queue < capacity
            reward[queue, action] = served - waiting_cost * queue - fast_cost * fast
            if not enters:
                reward[queue, action] -= arrival * rejection_cost
            for arrives, chance in ((1, arrival), (0, 1.0 - arrival)):
                for leaves, likely in ((1, served), (0, 1.0 - served)):
                    following = queue + arrives * enters - leaves
                    transition[queue, action, following] += chance * likely
    return FiniteProcess.from_arrays(transition, (reward - low) / (1.0 - low), horizon=horizon)


def _demand_probabilities(demand: Sequence[float] | float, capacity: int) -> np.ndarray:
    if isinstance(demand, int | float):
        if not demand > 0.0:
            raise SpecificationError(f"demand = {demand:g} must be above zero")
        sizes = range(capacity)
        below = [math.exp(-demand) * demand**size / math.factorial(size) for size in sizes]
        # More than the store holds is as good as a full store.
        return np.append(below, max(0.0, 1.0 - sum(below)))
    probabilities = np.asarray(demand, np.float64)
    if (
        probabilities.ndim != 1
        or (probabilities < 0.0).any()
        or abs(probabilities.sum() - 1.0) > 1e-5
    ):
        raise SpecificationError(
            f"the probabilities of demand must be at least zero and add up to 1, "
            f"not to {probabilities.sum():g}"
        )
    return probabilities / probabilities.sum()
