"""RF-UCRL against its equations in NumPy, its bound, and budgets that are told later."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.constrained import course_of
from headwater.evaluation.instances import stacked
from headwater.methods.tabular.reward_free.rf_ucrl import RFUCRL
from headwater.ops.tabular.planning import expected_return, optimal_values

from ..constrained_twin import A, H, S, data_of, tables, updated
from ..rover_problem import (
    KEY,
    ROVER,
    expect_plans_for_later_budgets,
)


@pytest.mark.parity
@pytest.mark.parametrize(("stationary", "scale"), [(False, 1.0), (True, 0.1)])
def test_the_error_bound_of_rf_ucrl(stationary, scale):
    data = data_of(20)
    state, _ = updated(RFUCRL(stationary=stationary, bonus_scale=scale), data)
    visits, following, _, _ = tables(data, stationary)
    value = np.zeros(S)
    for h in reversed(range(H)):
        error = np.zeros((S, A))
        for s in range(S):
            for a in range(A):
                n, most = visits[h, s, a], H - 1 - h
                if n == 0:
                    error[s, a] = most
                    continue
                beta = np.log(2 * S * A * H / 0.1) + (S - 1) * np.log(np.e * (1 + n / (S - 1)))
                onward = following[h, s, a] @ value / n
                error[s, a] = min(most, most * scale * np.sqrt(2 * beta / n) + onward)
        np.testing.assert_allclose(state.error[h], error, rtol=1e-5, atol=1e-6)
        value = error.max(axis=1)


@pytest.mark.oracle
def test_the_bound_of_rf_ucrl_covers_any_reward():
    processes = stacked(
        [random_process(states=2, actions=2, horizon=3, key=jax.random.key(i)) for i in range(8)]
    )
    processes = dataclasses.replace(processes, cost=jnp.zeros((*processes.reward.shape, 1)))
    method = RFUCRL()
    course = course_of(method, processes, [1.0], draws=4000, every=4000, explore=True, key=KEY)

    def gaps(process, state, key):
        reward = jax.random.bernoulli(key, 0.5, process.reward.shape).astype(jnp.float32)
        truth = dataclasses.replace(process, reward=reward)
        best = expected_return(truth, optimal_values(truth).policy)
        return best - expected_return(truth, method.plan(state, reward))

    keys = jax.random.split(KEY, 20)
    each = jax.vmap(lambda p, s: jax.vmap(lambda k: gaps(p, s, k))(keys))
    short = np.asarray(jax.jit(each)(processes, course.state))
    bounds = np.asarray(jax.vmap(method.planning_bound)(course.state))
    assert np.all(short <= bounds[:, None] + 1e-5)
    # And it is no bound that any policy would keep to.
    assert bounds.max() < 1.0


@pytest.mark.oracle
def test_one_exploration_serves_budgets_that_are_told_later():
    expect_plans_for_later_budgets(RFUCRL(stationary=True, bonus_scale=0.02))


def test_what_cannot_be_planned_is_explained():
    nowhere = FiniteProblem(9, 4, 6, budgets=jnp.asarray([0.3]))
    state = RFUCRL().init(nowhere, key=KEY)
    with pytest.raises(SpecificationError, match="needs to know where episodes start"):
        RFUCRL().model(state, ROVER.reward)
    with pytest.raises(SpecificationError, match="RFUCRL plans from where episodes start"):
        RFUCRL().planning_bound(state)
