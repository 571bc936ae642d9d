"""ApproPO against its equations in NumPy and on a process with a budget."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.methods.tabular.constrained.appropo import ApproPO

from ..constrained_twin import A, H, S, data_of, plan_of, sum_of, tables, updated
from ..rover_problem import (
    BEST,
    KEY,
    expect_best_within_budget,
    expect_missing_budgets_and_costs_asked_for,
)


@pytest.mark.parity
def test_a_round_of_appropo():
    data, height = data_of(6), 3.0
    method = ApproPO(reward_threshold=1.0, cone_height=height, cache_size=1, learning_rate=0.5)
    state, metrics = updated(method, data)
    visits, following, reward, cost = tables(data, True)
    times, seen = np.maximum(visits, 1), visits > 0
    model = np.where(seen[..., None], following / times[..., None], np.eye(S)[:, None])
    uniform = np.full((H, S, A), 0.5)
    returns = np.asarray([sum_of(model, uniform, table / times) for table in (reward, cost)])
    lifted = np.append(returns, height) / height
    direction, rounds = np.zeros(3), 0
    # The response is played once and used again as long as it is good enough, here once at most.
    while rounds < 2 and (rounds == 0 or direction @ lifted <= 0.0):
        rounds += 1
        direction = direction + 0.5 * lifted / np.sqrt(rounds)
        # The polar of the cone over {reward ≥ 1, cost ≤ 0.4}: spanned by these two directions.
        rays = np.asarray([[-1.0, 0.0, 1.0 / height], [0.0, 1.0, -0.4 / height]])
        best = np.zeros(3)
        for rows in ([0], [1], [0, 1]):
            weights = np.linalg.lstsq(rays[rows].T, direction, rcond=None)[0]
            near = weights @ rays[rows]
            closer = np.linalg.norm(near - direction) < np.linalg.norm(best - direction)
            if (weights >= 0).all() and closer:
                best = near
        direction = best / max(np.linalg.norm(best), 1.0)
    assert float(metrics["rounds"]) == rounds
    np.testing.assert_allclose(state.direction, direction, atol=1e-4)
    worth = -direction[0] * reward / times - direction[1] * cost / times
    size = np.linalg.norm(direction[:2])
    worth = np.where(seen, worth + size * 0.01 / np.sqrt(times), size)
    np.testing.assert_allclose(state.policy, plan_of(model, worth))


@pytest.mark.oracle
def test_the_best_within_the_budget_is_learned():
    expect_best_within_budget(
        ApproPO(reward_threshold=0.98 * BEST, episodes_per_response=5), 400, 0.93, 0.05
    )


def test_missing_budgets_and_costs_are_asked_for():
    expect_missing_budgets_and_costs_asked_for(ApproPO())


def test_what_cannot_be_planned_is_explained():
    nowhere = FiniteProblem(9, 4, 6, budgets=jnp.asarray([0.3]))
    with pytest.raises(SpecificationError, match="needs to know where episodes start"):
        ApproPO().init(nowhere, key=KEY)
