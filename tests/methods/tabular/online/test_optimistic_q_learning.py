"""Optimistic Q-learning against its equations in NumPy and on a small process."""

import jax
import numpy as np
import pytest

from headwater.methods.tabular.online.optimistic_q_learning import OptimisticQLearning

from .. import finite_problems
from ..finite_problems import (
    expect_best_policy,
)
from ..finite_twin import (
    ACTIONS,
    HORIZON,
    SIZES,
    STATES,
    begin,
    episodes,
    learn_each,
    walk,
)

EPISODES, FAILURE, SCALE = 500.0, 0.05, 0.03


EPISODES, FAILURE, SCALE = 500.0, 0.05, 0.03


EPISODES, FAILURE, SCALE = 500.0, 0.05, 0.03


LOG = np.log(STATES * ACTIONS * EPISODES * HORIZON / FAILURE)


@pytest.mark.parity
@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
def test_every_step(bonus):
    method = OptimisticQLearning(bonus, SCALE, FAILURE, EPISODES)
    data = episodes(60)
    states, _ = learn_each(method, begin(method), data)

    action_value, times = np.full(SIZES, float(HORIZON)), np.zeros(SIZES, int)
    value = np.full((HORIZON + 1, STATES), float(HORIZON))
    value[HORIZON] = 0.0
    seen, beta = {}, np.zeros(SIZES)
    slower = 0
    for k, (h, s, a, r, following) in walk(data):
        times[h, s, a] += 1
        t = times[h, s, a]
        alpha = (HORIZON + 1) / (HORIZON + t)
        nexts = seen.setdefault((h, s, a), [])
        nexts.append(value[h + 1, following])
        hoeffding = np.sqrt(HORIZON**3 * LOG / t)
        if bonus == "hoeffding":
            b = SCALE * hoeffding
        else:
            variance = np.var(nexts)
            first = np.sqrt(HORIZON / t * (variance + HORIZON) * LOG)
            second = np.sqrt(HORIZON**7 * STATES * ACTIONS) * LOG / t
            slower += first + second < hoeffding
            new = SCALE * min(first + second, hoeffding)
            b = (new - (1 - alpha) * beta[h, s, a]) / (2 * alpha)
            beta[h, s, a] = new
        q = (1 - alpha) * action_value[h, s, a] + alpha * (r + value[h + 1, following] + b)
        action_value[h, s, a] = q
        value[h, s] = min(HORIZON, action_value[h, s].max())
        if h == HORIZON - 1:
            np.testing.assert_allclose(states.action_value[k], action_value, rtol=2e-5)
    np.testing.assert_array_equal(states.visited.times[-1], times)

    together, _ = method.update(begin(method), data, key=jax.random.key(0))
    np.testing.assert_allclose(together.action_value, action_value, rtol=2e-5)


@pytest.mark.parity
def test_the_variance_bounds_the_doubt_once_there_are_many_visits():
    """The second branch of the minimum in UCB-B, which few visits never reach."""
    method = OptimisticQLearning("bernstein", 1.0, FAILURE, EPISODES)
    times = np.asarray([10.0, 1e5, 1e7], np.float32)
    variance = np.asarray([0.5, 0.5, 0.1], np.float32)
    found = method._uncertainty(times, variance, begin(method).problem)
    first = np.sqrt(HORIZON / times * (variance + HORIZON) * LOG)
    second = np.sqrt(HORIZON**7 * STATES * ACTIONS) * LOG / times
    hoeffding = np.sqrt(HORIZON**3 * LOG / times)
    np.testing.assert_allclose(found, np.minimum(first + second, hoeffding), rtol=1e-5)
    assert list(first + second < hoeffding) == [False, True, True]


@pytest.mark.oracle
@pytest.mark.parametrize(
    "method",
    [
        OptimisticQLearning("hoeffding", 0.05, num_episodes=float(finite_problems.EPISODES)),
        OptimisticQLearning("bernstein", 0.1, num_episodes=float(finite_problems.EPISODES)),
    ],
    ids=["hoeffding", "bernstein"],
)
def test_the_best_policy_is_found(method):
    expect_best_policy(method)
