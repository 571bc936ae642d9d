"""A policy beside the behaviour of its log: which is better, where the truth is known."""

import dataclasses

import numpy as np
import pytest

import headwater as hw
from headwater.api.standing import Standing, beside_behaviour
from headwater.evaluation.estimators.selection import Candidate

LOW, HIGH = 0.0, 1.0
"""What the two actions pay."""


@pytest.fixture(scope="module")
def log():
    """Decisions between an action that pays nothing and one that pays one, taken at random."""
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=2_000)
    rewards = np.where(actions == 1, HIGH, LOW) + rng.normal(0.0, 0.3, actions.size)
    seen = rng.normal(size=(actions.size, 2)).astype(np.float32)
    return hw.Dataset.from_arrays(
        seen, actions, rewards, np.ones(actions.size, bool), action_count=2
    )


@pytest.fixture(scope="module")
def run(log):
    method = hw.DiscreteCQL(hidden_sizes=(8,), learning_rate=3e-3)
    how = {"env": "none", "updates": 300, "seeds": 2, "batch_size": 64, "progress": False}
    return hw.train(method, log, **how)


def test_a_policy_that_takes_what_pays_is_better(log, run):
    found = beside_behaviour(run)
    assert found is not None and found.verdict == "better"
    value, behaviour = found.policy.value, found.behaviour.value
    assert value == pytest.approx(HIGH, abs=0.1)
    assert behaviour == pytest.approx(np.mean(log.rewards), abs=1e-5)
    assert found.sentence.startswith("better than the behaviour that logged the data: ")
    assert "over 2,000 episodes of its own log" in found.sentence
    assert found.to_json()["policy"]["advantage_low"] > 0.0


def test_the_same_policy_is_below_where_the_other_action_pays(log, run):
    other = hw.Dataset.from_arrays(
        log.observations, log.actions, 1.0 - log.rewards, log.terminals, action_count=2
    )
    found = beside_behaviour(run, other)
    assert found is not None and found.verdict == "below"
    assert found.sentence.startswith("below the behaviour that logged the data: ")
    assert "discounted, a difference of -" in found.sentence


def test_where_actions_make_no_difference_nothing_is_told_apart(log, run):
    rewards = np.random.default_rng(1).normal(size=log.size)
    even = hw.Dataset.from_arrays(
        log.observations, log.actions, rewards, log.terminals, action_count=2
    )
    found = beside_behaviour(run, even)
    assert found is not None and found.verdict == "not told apart"


def test_of_a_large_log_some_episodes_are_taken(log, run, monkeypatch):
    monkeypatch.setattr("headwater.api.standing._MOST_ROWS", 500)
    found = beside_behaviour(run, log)
    assert found is not None and found.episodes == 499 and found.verdict == "better"


def test_what_has_no_log_or_no_rewards_is_not_compared(log, run):
    assert beside_behaviour(dataclasses.replace(run, log=None)) is None
    silent = dataclasses.replace(log, metadata={**log.metadata, "missing": ["rewards"]})
    assert beside_behaviour(run, silent) is None
    # That every action was logged may be said; one that was inferred is nobody's behaviour.
    known = np.ones(log.size, np.float32)
    assert beside_behaviour(run, dataclasses.replace(log, action_confidence=known)) is not None
    known[0] = 0.5
    assert beside_behaviour(run, dataclasses.replace(log, action_confidence=known)) is None


def test_a_refusal_is_passed_on():
    standing = Standing(Candidate("run", refused="too few"), Candidate("the behaviour"), 3)
    assert standing.verdict == "not judged"
    assert standing.sentence == "beside the behaviour that logged the data: not judged, too few"
