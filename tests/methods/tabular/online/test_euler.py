"""EULER against its equations in NumPy and on a small process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.tabular.online.euler import EULER
from headwater.ops.tabular.planning import (
    policy_values,
)

from .. import finite_problems
from ..finite_problems import (
    PROBLEM,
    PROCESS,
    expect_best_policy,
    expect_optimistic_plans,
    over_data_sets,
)
from ..finite_twin import (
    ACTIONS,
    HORIZON,
    SIZES,
    STATES,
    Tally,
    begin,
    episodes,
    learn_each,
    moments,
    problem,
    walk,
)

EPISODES, FAILURE, SCALE = 500.0, 0.05, 0.02


EPISODES, FAILURE, SCALE = 500.0, 0.05, 0.02


EPISODES, FAILURE, SCALE = 500.0, 0.05, 0.02


LOG = np.log(4 * STATES * ACTIONS * EPISODES * HORIZON / (FAILURE / 7))


def phi(spread, visits):
    return np.sqrt(2 * spread * LOG / visits) + HORIZON * LOG / (3 * visits)


def plan(counts, reward):
    upper, lower = np.zeros((2, HORIZON + 1, STATES))
    action_value = np.empty(SIZES)
    for h in reversed(range(HORIZON)):
        for s in range(STATES):
            low = np.zeros(ACTIONS)
            for a in range(ACTIONS):
                if counts.following[h, s, a].sum() == 0:
                    action_value[h, s, a] = HORIZON - h
                    continue
                visits, row, mean, variance = counts.model(h, s, a)
                width = 0.0
                if reward is None:
                    width = np.sqrt(2 * variance * LOG / visits) + 7 * LOG / (3 * visits)
                else:
                    mean = reward[h, s, a]
                largest, b_p, b_v = HORIZON * LOG / 3, HORIZON * np.sqrt(2 * LOG), np.sqrt(2 * LOG)
                norm = np.sqrt(row @ (upper[h + 1] - lower[h + 1]) ** 2)
                correction = ((4 * largest + b_p) / np.sqrt(visits) + b_v * norm) / np.sqrt(visits)
                expected, spread = moments(row, upper[h + 1])
                bonus = width + phi(spread, visits) + correction
                action_value[h, s, a] = min(HORIZON - h, mean + expected + SCALE * bonus)
                expected, spread = moments(row, lower[h + 1])
                penalty = width + phi(spread, visits) + correction
                low[a] = max(0.0, mean + expected - SCALE * penalty)
            best = action_value[h, s].argmax()
            upper[h, s], lower[h, s] = action_value[h, s, best], low[best]
    return action_value, lower[:-1]


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
def test_every_plan(known):
    method = EULER(SCALE, FAILURE, EPISODES)
    data = episodes(40)
    states, _ = learn_each(method, begin(method, known), data)
    reward = np.asarray(problem(True).reward, np.float64) if known else None
    counts = Tally()
    for k, step in walk(data):
        counts.add(*step)
        if step[0] == HORIZON - 1:
            action_value, lower = plan(counts, reward)
            np.testing.assert_allclose(states.action_value[k], action_value, rtol=2e-5)
            np.testing.assert_allclose(states.lower[k], lower, rtol=2e-4, atol=1e-5)
    assert np.count_nonzero(lower) > 3 and np.unique(np.round(action_value, 4)).size > 8


@pytest.mark.oracle
def test_the_best_policy_is_found():
    expect_best_policy(EULER(0.05, num_episodes=float(finite_problems.EPISODES)))


@pytest.mark.oracle
def test_plans_are_optimistic_everywhere_in_nearly_all_data_sets():
    method = EULER()
    expect_optimistic_plans(lambda counts: method._plan(counts, PROBLEM)[0], 3_000)


@pytest.mark.oracle
def test_the_lower_values_of_euler_are_lower():
    action_value, lower = over_data_sets(lambda c: EULER()._plan(c, PROBLEM), 3_000)
    assert float(jnp.mean(lower[:, 0] > 0.0)) > 0.9
    policies = jax.nn.one_hot(jnp.argmax(action_value, axis=-1), PROCESS.actions)
    worth = jax.vmap(lambda p: policy_values(PROCESS, p).value)(policies)
    assert jnp.mean(jnp.all(lower <= worth[:, :-1] + 1e-4, axis=(1, 2))) >= 0.9
