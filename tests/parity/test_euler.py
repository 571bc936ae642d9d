"""EULER against its equations (Zanette and Brunskill 2019, algorithm 1) in NumPy."""

import numpy as np
import pytest

from headwater.methods.tabular.online.euler import EULER

from .finite_twin import (
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
