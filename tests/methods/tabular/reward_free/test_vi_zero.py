"""VI-Zero against its equations in NumPy, and budgets that are told later."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.methods.tabular.reward_free.vi_zero import VIZero

from ..constrained_twin import PROBLEM, A, H, S, data_of, tables, updated
from ..rover_problem import KEY, ROVER, expect_plans_for_later_budgets


@pytest.mark.parity
@pytest.mark.parametrize("stationary", [False, True])
def test_the_values_of_vi_zero(stationary):
    data, scale = data_of(20), 1e-3
    state, _ = updated(VIZero(stationary=stationary, bonus_scale=scale), data)
    visits, following, _, _ = tables(data, stationary)
    log = np.log(S * A * H * 1e4 / 0.1)
    value = np.zeros(S)
    for h in reversed(range(H)):
        found = np.full((S, A), float(H))
        for s, a in np.argwhere(visits[h] > 0):
            n = visits[h, s, a]
            beta = scale * (np.sqrt(H**2 * log / n) + H**2 * S * log / n)
            onward = (1 + 1 / H) * (following[h, s, a] @ value) / n
            found[s, a] = min(onward + beta, H)
        np.testing.assert_allclose(state.action_value[h], found, rtol=1e-5)
        value = found.max(axis=1)


@pytest.mark.parity
def test_vi_zero_keeps_the_model_of_the_lowest_value():
    method = VIZero(bonus_scale=1e-3)
    state = method.init(PROBLEM, key=KEY)
    kept = np.asarray(state.best.visits)
    for seed in range(4):
        data = data_of(1, seed)
        before = float(state.lowest)
        state, metrics = method.update(state, data, key=KEY)
        if float(metrics["value"]) < before:
            kept = np.asarray(state.counts.visits)
        np.testing.assert_array_equal(state.best.visits, kept)


@pytest.mark.oracle
def test_one_exploration_serves_budgets_that_are_told_later():
    expect_plans_for_later_budgets(VIZero(stationary=True, bonus_scale=1e-5))


def test_what_cannot_be_planned_is_explained():
    nowhere = FiniteProblem(9, 4, 6, budgets=jnp.asarray([0.3]))
    state = VIZero().init(nowhere, key=KEY)
    with pytest.raises(SpecificationError, match="needs to know where episodes start"):
        VIZero().model(state, ROVER.reward)
