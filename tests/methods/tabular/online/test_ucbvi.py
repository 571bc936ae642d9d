"""UCBVI against its equations (Azar et al. 2017, algorithms 1, 3 and 4) and on a small process."""

import numpy as np
import pytest

from headwater.methods.tabular.online.ucbvi import UCBVI

from .. import finite_problems
from ..finite_problems import (
    HIGHEST,
    PROBLEM,
    expect_best_policy,
    expect_optimistic_plans,
)
from ..finite_twin import (
    ACTIONS,
    HORIZON,
    SIZES,
    STATES,
    begin,
    episodes,
    learn_each,
    moments,
    problem,
    tally,
)

EPISODES, FAILURE = 500.0, 0.05


EPISODES, FAILURE = 500.0, 0.05


LOG = np.log(5 * STATES * ACTIONS * EPISODES * HORIZON / FAILURE)


def plan(data, old, bonus, scale, reward=None):
    counts = tally(data)
    value = np.zeros((HORIZON + 1, STATES))
    for h in reversed(range(HORIZON)):
        for s in range(STATES):
            for a in range(ACTIONS):
                if counts.following[h, s, a].sum() == 0:
                    continue
                visits, row, mean, variance = counts.model(h, s, a)
                expected, spread = moments(row, value[h + 1])
                if bonus == "hoeffding":
                    b = 7 * HORIZON * LOG * np.sqrt(1 / visits)
                else:
                    b = np.sqrt(8 * LOG * spread / visits) + 14 * HORIZON * LOG / (3 * visits)
                    uncertainty = 0.0
                    for y in range(STATES):
                        if row[y] > 0 and h + 1 < HORIZON:
                            arrived = counts.following[h + 1, y].sum()
                            rare = 100**2 * HORIZON**3 * STATES**2 * ACTIONS * LOG**2 / arrived
                            uncertainty += row[y] * min(rare, HORIZON**2)
                    b += np.sqrt(8 / visits * uncertainty)
                    if reward is None:
                        b += np.sqrt(2 * LOG * variance / visits) + 7 * LOG / (3 * visits)
                r = mean if reward is None else reward[h, s, a]
                old[h, s, a] = min(old[h, s, a], HORIZON, r + expected + scale * b)
        value[h] = old[h].max(axis=-1)
    return old


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("bonus, scale", [("hoeffding", 0.002), ("bernstein", 0.01)])
def test_every_plan(bonus, scale, known):
    method = UCBVI(bonus, scale, FAILURE, EPISODES)
    data = episodes(40)
    states, _ = learn_each(method, begin(method, known), data)
    reward = np.asarray(problem(True).reward, np.float64) if known else None
    old = np.full(SIZES, float(HORIZON))
    for k in range(40):
        seen = type(data)(data.state[: k + 1], data.action[: k + 1], data.reward[: k + 1])
        old = plan(seen, old, bonus, scale, reward)
        np.testing.assert_allclose(states.action_value[k], old, rtol=2e-5, err_msg=str(k))
    assert np.unique(np.round(old, 4)).size > 8


@pytest.mark.parity
def test_values_may_be_capped_by_the_steps_that_remain():
    method = UCBVI(value_cap="remaining")
    states, _ = learn_each(method, begin(method), episodes(2))
    np.testing.assert_array_equal(states.action_value[-1].max(axis=(1, 2)), [3.0, 2.0, 1.0])


@pytest.mark.parity
def test_the_doubt_is_an_exact_cap_until_states_are_common():
    """At the theorem's constants a state must be visited very often before its doubt falls."""
    rare = 1e4 * HORIZON**3 * STATES**2 * ACTIONS * LOG**2 / HORIZON**2
    assert rare > 1e6


@pytest.mark.oracle
@pytest.mark.parametrize(
    "method",
    [
        UCBVI("hoeffding", 0.005, num_episodes=float(finite_problems.EPISODES)),
        UCBVI("bernstein", 0.05, num_episodes=float(finite_problems.EPISODES)),
    ],
    ids=["hoeffding", "bernstein"],
)
def test_the_best_policy_is_found(method):
    expect_best_policy(method)


@pytest.mark.oracle
def test_plans_are_optimistic_everywhere_in_nearly_all_data_sets():
    method = UCBVI("hoeffding")
    expect_optimistic_plans(lambda counts: method._plan(counts, HIGHEST, PROBLEM), 8_000_000)
