"""REFUEL against its equations in NumPy, and on locks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.evaluation.exact import best_return, returns_of
from headwater.evaluation.model_error import worst_model_error
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.low_rank.refuel import REFUEL
from headwater.runs.loop import run
from headwater.runs.recipes.representation import downstream_stage, upstream_stage

from .locks import expect_other_problems_refused, locks
from .low_rank_twin import (
    ACTIONS,
    DELTA,
    HORIZON,
    RANK,
    TASKS,
    bonus_of,
    both_constants,
    expect_practical_constants,
    expected_of,
    log_classes,
    model_of,
    targets,
)


@pytest.mark.parity
def test_refuel_plans_for_the_bonuses_of_the_paper():
    features, measures = log_classes(2)
    for constants, state, metrics, data in both_constants(REFUEL, (TASKS,)):
        feature, model = model_of(state)
        common = np.log(2 * HORIZON / DELTA)
        log = np.log(2.0) + features + TASKS * measures + common
        scale, ridge = 1.0, 1.0
        if constants == "theorem":
            ridge = RANK * (features + np.log(TASKS) + common)
            scale = 5.0 * np.sqrt(2.0 * ACTIONS * log + ridge * TASKS * RANK)
        initial = np.asarray(state.problem.initial)
        expected = []
        for task in range(TASKS):
            pairs = targets(data, task)
            bonus = bonus_of(feature, pairs, scale, ridge, 1.0)
            policy = np.asarray(state.explorer)[task]
            expected.append(expected_of(model[task], initial[task], bonus, policy)[:-1])
        value = np.sum(np.sqrt(np.sum(np.square(expected), axis=0)))
        np.testing.assert_allclose(metrics["pseudo_cumulative_value"], value, rtol=1e-4)
        bound = 2.0 * value / TASKS + 2.0 * np.sqrt(ACTIONS * log / 2.0 / TASKS)
        np.testing.assert_allclose(metrics["model_error_bound"], bound, rtol=1e-4)


def test_the_constants_are_the_practical_ones_by_default():
    expect_practical_constants(REFUEL)


@pytest.mark.oracle
def test_refuel_opens_all_locks_and_its_features_open_a_new_one():
    given = locks(4)
    known, new = given.subset([0, 1, 2]), given.task(3)
    problem = new.problem(known_reward=True)
    upstream = REFUEL(rank=RANK, episodes_per_step=4, num_restarts=4)
    downstream = LSVIUCB(bonus_scale=0.01, max_return=1.0 / 3.0)
    stages = [
        upstream_stage(upstream, known.process, updates=20, tasks=3),
        downstream_stage(downstream, new, problem, updates=40),
    ]
    outcomes = run(stages, known.process.problem(known_reward=True), progress=False).outcomes
    state = jax.tree.map(lambda x: x[0], outcomes["upstream"].state)
    share = returns_of(known.process, upstream.policy(state, explore=False))
    np.testing.assert_allclose(share / best_return(known.process), 1.0, atol=0.02)
    error = worst_model_error(known.process, upstream.model(state).transition)
    assert float(jnp.max(error)) < 0.2, error
    later = jax.tree.map(lambda x: x[0], outcomes["downstream"].state)
    assert np.array_equal(later.features, state.factors.feature)
    found = returns_of(new, downstream.policy(later, explore=False)) / best_return(new)
    assert float(found) > 0.95, found


def test_problems_that_do_not_fit_are_refused(key):
    expect_other_problems_refused(REFUEL, key)
