"""Exact planning under constraints, as a linear program over occupancies; on the host."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess


class ConstrainedPlan(NamedTuple):
    """The best policy within the budgets (NumPy, double precision).

    **Arguments:** `policy`: probabilities of actions, uniform in states that it never reaches;
    `occupancy`: probability of every state and action, at each step; `value`: expected sum of
    rewards; `spent`: expected sum of each cost; `price`: how much `value` would rise for each unit
    of a larger budget, zero where the budget does not bind.
    """

    policy: Float[np.ndarray, "horizon state action"]
    occupancy: Float[np.ndarray, "horizon state action"]
    value: float
    spent: Float[np.ndarray, " constraint"]
    price: Float[np.ndarray, " constraint"]


def constrained_policy(process: FiniteProcess, costs: Any, budgets: Any) -> ConstrainedPlan:
    """The policy of highest expected return among those whose expected costs keep to the budgets.

    It may have to choose at random. Solved exactly with SciPy's HiGHS.

    **Arguments:** `costs`: `[constraint, horizon, state, action]`; `budgets`: `[constraint]`, upper
    bounds of the expected sums of costs over an episode (for a lower bound, negate both).

    Raises `SpecificationError` if shapes do not fit, a number is not finite, or no policy keeps to
    the budgets.
    """
    costs, budgets = _checked(process, costs, budgets)
    reward = np.asarray(process.reward, np.float64)
    balance, inflow = _flow(process)
    spending = costs.reshape(len(costs), reward.size)
    found = _solve(-reward.reshape(-1), spending, budgets, balance, inflow)
    if found.status == 2:
        raise SpecificationError(_infeasible(spending, budgets, balance, inflow))
    if found.status != 0:
        raise SpecificationError(f"the linear program was not solved: {found.message}")
    occupancy = np.maximum(found.x, 0.0).reshape(reward.shape)
    visited = occupancy.sum(axis=-1, keepdims=True)
    uniform = np.full_like(occupancy, 1.0 / reward.shape[-1])
    reached = visited > 1e-12
    return ConstrainedPlan(
        np.where(reached, occupancy / np.where(reached, visited, 1.0), uniform),
        occupancy,
        float(np.sum(occupancy * reward)),
        spending @ occupancy.reshape(-1),
        np.abs(np.asarray(found.ineqlin.marginals, np.float64)),
    )


def _checked(process: FiniteProcess, costs: Any, budgets: Any) -> tuple[np.ndarray, np.ndarray]:
    costs, budgets = np.asarray(costs, np.float64), np.asarray(budgets, np.float64)
    sizes = process.reward.shape
    if budgets.ndim != 1 or costs.shape != (len(budgets), *sizes):
        raise SpecificationError(
            f"costs have shape {costs.shape} and budgets {budgets.shape}, but they must be "
            f"(constraint, {', '.join(map(str, sizes))}) and (constraint,)"
        )
    if not (np.isfinite(costs).all() and np.isfinite(budgets).all()):
        raise SpecificationError("costs and budgets must be finite numbers")
    return costs, budgets


def _flow(process: FiniteProcess) -> tuple[Any, np.ndarray]:
    """Constraints that make numbers an occupancy: what enters a state at a step leaves it."""
    from scipy import sparse

    transition = np.asarray(process.transition, np.float64)
    transition = transition / transition.sum(axis=-1, keepdims=True)
    horizon, states, actions, _ = transition.shape
    leaving = sparse.kron(sparse.eye(horizon * states), np.ones((1, actions)))
    steps = transition.reshape(horizon, states * actions, states)
    if horizon > 1:
        # The last step's transitions lead out of the episode.
        entering = sparse.block_diag([sparse.coo_matrix(step.T) for step in steps[:-1]])
        below = sparse.coo_matrix(
            (entering.data, (entering.row + states, entering.col)), shape=leaving.shape
        )
        leaving = leaving - below
    inflow = np.zeros(horizon * states)
    initial = np.asarray(process.initial, np.float64)
    inflow[:states] = initial / initial.sum()
    return leaving.tocsr(), inflow


def _solve(
    objective: np.ndarray,
    spending: np.ndarray,
    budgets: np.ndarray,
    balance: Any,
    inflow: np.ndarray,
) -> Any:
    from scipy.optimize import linprog

    return linprog(
        objective, A_ub=spending, b_ub=budgets, A_eq=balance, b_eq=inflow, method="highs"
    )


def _infeasible(spending: np.ndarray, budgets: np.ndarray, balance: Any, inflow: np.ndarray) -> str:
    for i, (cost, budget) in enumerate(zip(spending, budgets)):
        least = _solve(cost, spending[:0], budgets[:0], balance, inflow).fun
        if least > budget:
            return (
                f"no policy keeps to budget {i} = {budget:g}: the lowest expected cost of any "
                f"policy is {least:g}"
            )
    return f"each of the {len(budgets)} budgets can be kept to, but no policy keeps to all at once"
