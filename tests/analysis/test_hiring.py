"""Mechanisms by hand for one agent, and for two against every deviation, one by one."""

import itertools

import numpy as np
import pytest

from headwater.analysis.hiring.hiring import (
    Hiring,
    Mechanism,
    best_response,
    optimal_mechanism,
    value_to_principal,
)
from headwater.analysis.hiring.online import hire_unknown_agents
from headwater.core.errors import DataError, SpecificationError
from headwater.testing import check_analysis


def one_agent(right=0.9, cost=0.1):
    """A coin is guessed; an effort makes the signal right so often."""
    of_effort = [[[p, 1.0 - p], [1.0 - p, p]] for p in (0.5, right)]
    return Hiring([0.5, 0.5], of_effort, [[0.0, cost]], np.eye(2))


def two_agents(seed=0, low=0.5):
    """Signals that are right or wrong together where both agents exert themselves."""
    draw = np.random.default_rng(seed)
    right = np.stack([np.full(2, low), draw.uniform(0.7, 0.9, 2)], axis=1)
    signals = np.zeros((2,) * 5)
    for efforts in np.ndindex(2, 2):
        one, other = right[0, efforts[0]], right[1, efforts[1]]
        both = 0.8 * min(one, other) + 0.2 * one * other if efforts == (1, 1) else one * other
        cells = np.array([[1.0 - one - other + both, other - both], [one - both, both]])
        for first, second, state in np.ndindex(2, 2, 2):
            at = (*efforts, first, second, state)
            signals[at] = cells[int(first == state), int(second == state)]
    return Hiring([0.4, 0.6], signals, [[0.0, 0.02], [0.0, 0.03]], np.diag([1.0, 0.8]))


def test_one_agent_is_paid_so_that_a_guess_does_not_pay():
    # x (0.9 - 0.5) = 0.1 for a report that comes true, which happens nine times of ten.
    paid = np.zeros((1, 2, 2, 2))
    paid[0, 1] = 0.25 * np.eye(2)
    expected = Mechanism(np.array([0.0, 1.0]), paid, 0.9 - 0.9 * 0.25)
    check_analysis(optimal_mechanism, {"hiring": one_agent()}, expected)
    dear = optimal_mechanism(one_agent(cost=0.3))
    assert dear.value == pytest.approx(0.5) and dear.efforts[0] == pytest.approx(1.0)


def payoff(hiring, mechanism, agent, asked, done, report):
    """What an agent gets by an effort and reports, in plain loops."""
    total = 0.0
    for profile in itertools.product(range(2), repeat=2):
        if profile[agent] != asked:
            continue
        actual = list(profile)
        actual[agent] = done
        total -= hiring.costs[agent][done] * mechanism.efforts[profile]
        for signal in itertools.product(range(2), repeat=2):
            told = list(signal)
            told[agent] = report[signal[agent]]
            for state in range(2):
                chance = hiring.prior[state] * hiring.signals[(*actual, *signal, state)]
                total += chance * mechanism.paid[(agent, *profile, *told, state)]
    return total


@pytest.mark.parametrize("seed", range(3))
def test_no_effort_and_no_reports_are_better_than_to_obey(seed):
    hiring = two_agents(seed)
    mechanism = optimal_mechanism(hiring)
    assert mechanism.efforts.sum() == pytest.approx(1.0) and mechanism.efforts.max() < 0.9999
    maps = list(itertools.product(range(2), repeat=2))
    for agent, asked in itertools.product(range(2), repeat=2):
        obeying = payoff(hiring, mechanism, agent, asked, asked, (0, 1))
        others = [payoff(hiring, mechanism, agent, asked, d, r) for d in range(2) for r in maps]
        assert max(others) <= obeying + 1e-7
        assert best_response(hiring, mechanism, agent, asked).gain <= 1e-7
        # Without payments the cheaper effort is the best.
        free = mechanism._replace(paid=np.zeros_like(mechanism.paid))
        gain = hiring.costs[agent][asked] * mechanism.efforts.sum(axis=1 - agent)[asked]
        response = best_response(hiring, free, agent, asked)
        assert response.gain == pytest.approx(gain) and (response.effort == 0 or gain < 1e-9)
    assert value_to_principal(hiring, mechanism) == pytest.approx(mechanism.value)
    single = [optimal_mechanism(hiring, profile=b).value for b in np.ndindex(2, 2)]
    assert mechanism.value > max(single) + 1e-4


def test_payments_for_ones_own_report_depend_on_nothing_else():
    paid = optimal_mechanism(two_agents(), payments="own", profile=(1, 1)).paid[:, 1, 1]
    np.testing.assert_allclose(paid[0, :, 0], paid[0, :, 1])
    np.testing.assert_allclose(paid[1, 0], paid[1, 1])
    assert paid.max() > 0.01


def test_what_is_not_known_is_learned():
    hiring = two_agents()
    hired = hire_unknown_agents(hiring, 2**18, exploration=4.0, slack=0.5, seed=1)
    np.testing.assert_allclose(hired.believed.costs, hiring.costs, atol=0.01)
    np.testing.assert_allclose(hired.believed.signals, hiring.signals, atol=0.06)
    assert 0 < hired.explored <= 4.0 * 2**12 and hired.obeyed
    # Every round of the exploration and of the slack costs something, and none all there is.
    assert 0.0 < hired.regret < 0.05 * 2**18 * optimal_mechanism(hiring).value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"costs": [0.1, 0.2]}, "costs have shape"),
        ({"signals": np.ones((2, 2))}, r"signals have shape \(2, 2\): with 1 agents of 2 efforts"),
        ({"prior": [1.0]}, "the prior is of 1 states, signals of 2"),
        ({"prior": [0.5, 0.6]}, "no probabilities that sum to 1"),
    ],
)
def test_problems_that_cannot_be_are_refused(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        optimal_mechanism(one_agent()._replace(**changes))


def test_what_cannot_be_had_is_said():
    with pytest.raises(SpecificationError, match="no mechanism makes the agents obey"):
        optimal_mechanism(one_agent(cost=3.0), profile=(1,))
    with pytest.raises(SpecificationError, match="30 rounds are too few"):
        hire_unknown_agents(two_agents(), 30)
    with pytest.raises(SpecificationError, match="did you mean joint"):
        optimal_mechanism(one_agent(), payments="joined")
