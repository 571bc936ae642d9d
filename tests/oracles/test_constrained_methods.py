"""The constrained family on problems with known answers, and what it promises, over many seeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.records import Episodes
from headwater.environments.tabular.constrained import rover
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.constrained import best_within, binding, course_of, stacked
from headwater.methods.tabular.constrained.appropo import ApproPO
from headwater.methods.tabular.constrained.conrl import ConRL
from headwater.methods.tabular.constrained.rcpo import RCPO
from headwater.methods.tabular.reward_free.rf_ucrl import RFUCRL
from headwater.methods.tabular.reward_free.vi_zero import VIZero
from headwater.ops.tabular.approachability import vector_returns
from headwater.ops.tabular.planning import expected_return, optimal_values

BUDGET = 0.3
ROVER = rover(("S00", "0P0", "00G"), horizon=6)
BEST = best_within(ROVER, [BUDGET]).value
KEY = jax.random.key(3)


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
    bounds = np.asarray(jax.vmap(method.suboptimality_bound)(course.state))
    assert np.all(short <= bounds[:, None] + 1e-5)
    # And it is no bound that any policy would keep to.
    assert bounds.max() < 1.0


@pytest.mark.parametrize("method", [
    RFUCRL(stationary=True, bonus_scale=0.02), VIZero(stationary=True, bonus_scale=1e-5)
])  # fmt: skip
def test_one_exploration_serves_budgets_that_are_told_later(method):
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


def test_conrl_is_optimistic_at_every_episode():
    costly = stacked([ROVER] * 4)
    for draws in (5, 60):
        course = course_of(
            ConRL(), costly, [BUDGET], draws=draws, every=draws, explore=True, key=KEY
        )
        for index in range(4):
            state = jax.tree.map(lambda leaf, i=index: leaf[i], course.state)
            assert best_within(ConRL().optimistic(state), [BUDGET]).value >= BEST


@pytest.mark.parametrize(
    ("method", "draws", "share", "over"),
    [
        (ConRL(bonus_scale=1e-5, commit="mixture"), 300, 0.93, 0.08),
        (ApproPO(reward_threshold=0.98 * BEST, episodes_per_response=5), 200, 0.93, 0.05),
        (RCPO(learning_rate=0.1, price_rate=0.03), 3000, 0.8, 0.1),
    ],
    ids=["ConRL", "ApproPO", "RCPO"],
)
def test_the_best_within_the_budget_is_learned(method, draws, share, over):
    course = course_of(
        method, stacked([ROVER] * 3), [BUDGET], draws=draws, every=draws // 10, explore=False,
        key=KEY,
    )  # fmt: skip
    exact = np.asarray(course.exact)[:, -3:].mean(axis=(0, 1))
    assert exact[0] >= share * BEST and exact[1] <= BUDGET + over, exact


def test_a_course_counts_its_episodes_and_sums_them():
    method = RCPO(episodes_per_update=4)
    course = course_of(method, stacked([ROVER] * 2), [BUDGET], draws=6, every=3, explore=True,
                       key=KEY)  # fmt: skip
    assert course.episodes.tolist() == [12, 24]
    # Nothing is learned before the first mark, so what was seen is what is expected of chance.
    longer = course_of(method, stacked([ROVER] * 2), [BUDGET], draws=1, every=1, explore=True,
                       key=KEY)  # fmt: skip
    np.testing.assert_allclose(course.exact[:, 0], longer.exact[:, 0])
    with pytest.raises(SpecificationError, match="draws = 5 must be a multiple of every = 2"):
        course_of(method, stacked([ROVER]), [BUDGET], draws=5, every=2, explore=True, key=KEY)


def test_processes_where_budgets_mean_something_are_found():
    def make(key):
        free = jax.random.bernoulli(key)
        reward = jnp.asarray([[0.0, 1.0]])
        cost = jnp.where(free, 0.0, jnp.asarray([[[0.0], [1.0]]]))
        return FiniteProcess.from_arrays(np.ones((1, 2, 1)), reward, horizon=1, cost=cost)

    for process in binding(make, lowest=0.1, highest=0.5, count=3, key=KEY):
        assert best_within(process, [1.0]).spent[0] == 1.0


EPISODE = Episodes(jnp.zeros((1, 7), jnp.int32), jnp.zeros((1, 6), jnp.int32), jnp.zeros((1, 6)))


@pytest.mark.parametrize("method", [ConRL(), ApproPO(), RCPO()], ids=["ConRL", "ApproPO", "RCPO"])
def test_missing_budgets_and_costs_are_asked_for(method):
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


def test_what_cannot_be_planned_is_explained():
    nowhere = FiniteProblem(9, 4, 6, budgets=jnp.asarray([0.3]))
    for method in (ConRL(), ApproPO()):
        with pytest.raises(SpecificationError, match="needs to know where episodes start"):
            method.init(nowhere, key=KEY)
    for method in (RFUCRL(), VIZero()):
        state = method.init(nowhere, key=KEY)
        with pytest.raises(SpecificationError, match="needs to know where episodes start"):
            method.model(state, ROVER.reward)
    with pytest.raises(SpecificationError, match="a bound needs to know where episodes start"):
        RFUCRL().suboptimality_bound(RFUCRL().init(nowhere, key=KEY))
    with pytest.raises(SpecificationError, match="of its own needs commit = 'mixture'"):
        ConRL(objective=jnp.sqrt).init(ROVER.problem(budgets=[0.3]), key=KEY)
    with pytest.raises(SpecificationError, match="the process has no costs: give `cost`"):
        best_within(dataclasses.replace(ROVER, cost=None), [0.3])
    with pytest.raises(SpecificationError, match="no policy keeps to budget 0 = -1"):
        best_within(ROVER, [-1.0])
    with pytest.raises(SpecificationError, match="ConRL learns one process, but this"):
        ConRL().init(stacked([ROVER] * 2).problem(budgets=[0.3]), key=KEY)
