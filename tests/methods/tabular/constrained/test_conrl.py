"""ConRL against its equations in NumPy and on a process with a budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.evaluation.constrained import best_within, course_of
from headwater.evaluation.instances import stacked
from headwater.methods.tabular.constrained.conrl import ConRL

from ..constrained_twin import A, D, H, S, data_of, plan_of, sum_of, tables, updated
from ..rover_problem import (
    BEST,
    BUDGET,
    KEY,
    ROVER,
    expect_best_within_budget,
    expect_missing_budgets_and_costs_asked_for,
)


@pytest.mark.parity
@pytest.mark.parametrize("scale", [1.0, 0.002])
def test_the_bonus_and_prices_of_conrl(scale):
    data, later = data_of(15), data_of(15, 1)
    state, metrics = updated(
        ConRL(
            bonus_scale=scale,
            num_multiplier_updates=4,
            multiplier_learning_rate=0.3,
            solution="average",
        ),
        data,
        later,
    )
    visits, following, reward, cost = (
        x + y for x, y in zip(tables(data, True), tables(later, True))
    )
    price = 0.0
    for played, pieces in ((15, tables(data, True)), (30, (visits, following, reward, cost))):
        n, onward, earned, spent = pieces
        seen = n > 0
        times = np.maximum(n, 1)
        bonus = H * np.sqrt(2 * np.log(8 * S * A * H * (D + 1) * (played + 1) ** 2 / 0.1) / times)
        bonus = np.where(seen, scale * np.minimum(bonus, 2 * H), 1.0)
        model = np.where(seen[..., None], onward / times[..., None], np.eye(S)[:, None])
        high, low = earned / times + bonus, spent / times - bonus
        prices = []
        for _ in range(4):
            policy = plan_of(model, high - price * low)
            price = max(0.0, price + 0.3 * (sum_of(model, policy, low) - 0.4))
            prices.append(price)
        final = plan_of(model, high - np.mean(prices) * low)
    optimistic = ConRL(bonus_scale=scale).optimistic(state)
    np.testing.assert_allclose(optimistic.reward, high, rtol=1e-5)
    np.testing.assert_allclose(optimistic.cost[..., 0], low, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(optimistic.transition, model, atol=1e-6)
    np.testing.assert_allclose(state.price, [price], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(state.policy, final)
    assert (price > 0.0) == (scale < 1.0)
    both = float(jnp.mean(jnp.sum(later.cost, axis=(1, 2))))
    assert float(metrics["over_budget"]) == pytest.approx(both - 0.4, rel=1e-4)
    total = float(jnp.sum(data.cost) + jnp.sum(later.cost))
    assert float(metrics["budget_left"]) == pytest.approx(1.0 - total / 4000.0, rel=1e-5)


@pytest.mark.parity
def test_a_hard_budget_switches_to_the_cheapest_policy():
    data = data_of(15)
    used = float(jnp.sum(data.cost))
    for episodes, exhausted in ((used / 0.4 + 1.0, False), (used / 0.4 - 1.0, True)):
        method = ConRL(hard_budget=True, num_episodes=episodes, bonus_scale=0.002)
        state, _ = updated(method, data)
        expected = state.cheapest if exhausted else state.policy
        np.testing.assert_array_equal(method.policy(state, explore=True), expected)
        np.testing.assert_array_equal(method.policy(state, explore=False), state.policy)
    model = method.optimistic(state)
    cheapest = plan_of(np.asarray(model.transition, np.float64), -np.asarray(model.cost)[..., 0])
    np.testing.assert_allclose(state.cheapest, cheapest)


@pytest.mark.oracle
def test_conrl_is_optimistic_at_every_episode():
    costly = stacked([ROVER] * 4)
    for draws in (5, 60):
        course = course_of(
            ConRL(), costly, [BUDGET], draws=draws, every=draws, explore=True, key=KEY
        )
        for index in range(4):
            state = jax.tree.map(lambda leaf, i=index: leaf[i], course.state)
            assert best_within(ConRL().optimistic(state), [BUDGET]).value >= BEST


@pytest.mark.oracle
def test_the_best_within_the_budget_is_learned():
    expect_best_within_budget(ConRL(bonus_scale=1e-5, solution="mixture"), 300, 0.93, 0.08)


def test_missing_budgets_and_costs_are_asked_for():
    expect_missing_budgets_and_costs_asked_for(ConRL())


def test_what_cannot_be_planned_is_explained():
    nowhere = FiniteProblem(9, 4, 6, budgets=jnp.asarray([0.3]))
    with pytest.raises(SpecificationError, match="needs to know where episodes start"):
        ConRL().init(nowhere, key=KEY)
    with pytest.raises(SpecificationError, match="of its own needs solution = 'mixture'"):
        ConRL(objective=jnp.sqrt, solution="average").init(ROVER.problem(budgets=[0.3]), key=KEY)
    with pytest.raises(SpecificationError, match="ConRL learns one process, but this"):
        ConRL().init(stacked([ROVER] * 2).problem(budgets=[0.3]), key=KEY)


TWO_ACTIONS = FiniteProcess.from_arrays(
    np.ones((1, 2, 1)), [[0.0, 1.0]], horizon=1, cost=[[[0.0], [1.0]]]
)


@pytest.mark.oracle
def test_where_only_a_mixture_is_best_conrl_mixes():
    """One action earns and spends one, the other nothing: the best takes the first 0.3 times.

    With `average` it takes one or the other for good: it earns nothing, or spends three budgets.
    """
    processes = stacked([TWO_ACTIONS] * 3)
    found = course_of(
        ConRL(bonus_scale=1e-5), processes, [0.3], draws=400, every=1, explore=True, key=KEY
    )
    earned, spent = np.moveaxis(np.asarray(found.exact)[:, 200:], -1, 0)
    assert best_within(TWO_ACTIONS, [0.3]).value == pytest.approx(0.3)
    assert (earned.mean(axis=1) > 0.27).all() and (spent.mean(axis=1) < 0.33).all()
    assert (spent[:, -1] < 0.4).all()


def test_constrained_methods_are_judged_within_the_budgets():
    """The free optimum is 1; no policy that keeps to the budget earns more than 0.3."""
    solution = hw.solve(ConRL(bonus_scale=1e-5), TWO_ACTIONS, budgets=(0.3,), episodes=20, seeds=2)
    assert solution.best == pytest.approx(0.3) and solution.regret is None
    assert solution.spent is not None and solution.spent.shape == (2, 1)
    assert "of 0.3" in str(solution) and "of budgets 0.3" in str(solution)
