"""A small process with a budget, and what methods must refuse and find on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Episodes
from headwater.environments.tabular.constrained import rover
from headwater.evaluation.constrained import best_within, course_of
from headwater.evaluation.instances import stacked
from headwater.ops.tabular.approachability import vector_returns

BUDGET = 0.3


ROVER = rover(("S00", "0P0", "00G"), horizon=6)


BEST = best_within(ROVER, [BUDGET]).value


KEY = jax.random.key(3)


EPISODE = Episodes(jnp.zeros((1, 7), jnp.int32), jnp.zeros((1, 6), jnp.int32), jnp.zeros((1, 6)))


def expect_best_within_budget(method, draws, share, over):
    """Fails unless `method` earns `share` of the best and spends at most `over` too much."""
    course = course_of(
        method, stacked([ROVER] * 3), [BUDGET], draws=draws, every=draws // 10, explore=False,
        key=KEY,
    )  # fmt: skip
    exact = np.asarray(course.exact)[:, -3:].mean(axis=(0, 1))
    assert exact[0] >= share * BEST and exact[1] <= BUDGET + over, exact


def expect_missing_budgets_and_costs_asked_for(method):
    """Fails unless `method` says in words which budgets and costs it needs."""
    name = type(method).__name__
    with pytest.raises(SpecificationError, match=f"{name} keeps to budgets of costs, but this"):
        method.init(ROVER.problem(), key=KEY)
    with pytest.raises(SpecificationError, match=rf"{name} needs a list of budgets.* shape \(0,\)"):
        method.init(ROVER.problem(budgets=[]), key=KEY)
    with pytest.raises(SpecificationError, match=f"{name} needs finite budgets"):
        method.init(ROVER.problem(budgets=[np.nan]), key=KEY)
    state = method.init(ROVER.problem(budgets=[0.3]), key=KEY)
    with pytest.raises(SpecificationError, match=f"{name} keeps to 1 budgets, but the episodes ha"):
        method.update(state, EPISODE, key=KEY)
    two = dataclasses.replace(EPISODE, cost=jnp.zeros((1, 6, 2)))
    with pytest.raises(SpecificationError, match="have 2 costs: there must be one budget for each"):
        method.update(state, two, key=KEY)


def expect_plans_for_later_budgets(method):
    """Fails unless one exploration by `method` serves budgets that are told later."""
    course = course_of(
        method, stacked([ROVER] * 3), [1.0], draws=300, every=300, explore=True, key=KEY
    )
    for budget in (0.2, 0.4):
        best = best_within(ROVER, [budget]).value
        for index in range(3):
            state = jax.tree.map(lambda leaf, i=index: leaf[i], course.state)
            plan = best_within(method.model(state, ROVER.reward, ROVER.cost), [budget])
            both = jnp.concatenate([ROVER.reward[..., None], ROVER.cost], axis=-1)
            found = vector_returns(ROVER, both, jnp.asarray(plan.policy, jnp.float32))
            assert float(found[0]) >= 0.93 * best and float(found[1]) <= budget + 0.07
