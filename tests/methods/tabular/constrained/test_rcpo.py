"""RCPO against its equations in NumPy and on a process with a budget."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.tabular.constrained.rcpo import RCPO

from ..constrained_twin import A, H, S, data_of, updated
from ..rover_problem import expect_best_within_budget, expect_missing_budgets_and_costs_asked_for


@pytest.mark.parity
def test_a_step_of_rcpo():
    data, rate = data_of(5), 0.02
    first = RCPO(learning_rate=rate, multiplier_learning_rate=0.5)
    state, _ = updated(first, data)
    spent = float(jnp.mean(jnp.sum(data.cost, axis=(1, 2))))
    price = max(0.0, 0.5 * (spent - 0.4))
    np.testing.assert_allclose(state.price, [price], rtol=1e-5)
    # The first step of Adam has the size of the rate, against the gradient's sign.
    gradient, value = np.zeros((S, A)), np.zeros(S)
    for states, actions, rewards in zip(data.state, data.action, data.reward):
        for h in range(H):
            ahead = float(jnp.sum(rewards[h:]))
            score = np.eye(A)[int(actions[h])] - 0.5
            gradient[int(states[h])] += score * ahead
            value[int(states[h])] += ahead
    np.testing.assert_allclose(state.logits, rate * np.sign(gradient), atol=1e-5)
    np.testing.assert_allclose(state.value, rate * np.sign(value), atol=1e-5)


@pytest.mark.oracle
def test_the_best_within_the_budget_is_learned():
    expect_best_within_budget(
        RCPO(learning_rate=0.1, multiplier_learning_rate=0.03), 3000, 0.8, 0.1
    )


def test_missing_budgets_and_costs_are_asked_for():
    expect_missing_budgets_and_costs_asked_for(RCPO())
