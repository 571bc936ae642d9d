"""Finite processes and logs that are not what they are said to be: one sentence each."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.finite import AbstractFiniteSimulator, FiniteStep
from headwater.environments.tabular.operations import inventory_control
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes

PROCESS = inventory_control(capacity=3, horizon=4)
LOG = hw.log_episodes(PROCESS, jnp.full((4, 4, 4), 0.25), episodes=20, key=jax.random.key(0))
ROWS, REWARD, START = np.full((1, 2, 2, 2), 0.5), np.zeros((1, 2, 2)), np.eye(2)[0]


def unchecked(cls, like=None, **fields):
    """What users can make, without the checks of types that only these tests have."""
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        default = field.default if like is None else getattr(like, field.name)
        object.__setattr__(made, field.name, fields.get(field.name, default))
    return made


class Always(AbstractFiniteSimulator):
    """Leads to one state and earns one reward, whatever is done."""

    first: Any = 0
    after: Any = 1
    reward: float = 0.5
    reward_range: Any = None

    horizon = 5
    states = 4
    actions = 2

    def reset(self, *, key):
        return self.first if isinstance(self.first, list) else jnp.asarray(self.first)

    def step(self, time, state, action, *, key):
        after = self.after if isinstance(self.after, list) else jnp.asarray(self.after)
        return unchecked(FiniteStep, state=after, reward=jnp.asarray(self.reward))


@pytest.mark.parametrize(
    "process, said",
    [
        (ROWS, "a ndarray is not a finite process: give a FiniteProcess .of arrays: FiniteProcess"),
        ((ROWS, REWARD), "a tuple is not a finite process"),
        (
            unchecked(hw.FiniteProcess, transition=ROWS[0], reward=REWARD[0], initial=START),
            "a FiniteProcess needs arrays .step, state, action, next state.*FiniteProcess.from_arr",
        ),
        (Always(first=0.0), "Always.reset gives a state that is a float32 of shape .*whole number"),
        (Always(after=[1]), "Always.step gives a state that is a list: it must be one whole numb"),
        (
            Always(after=4),
            "Always led to state 4, which is not one of 0 … 3: count states from zero",
        ),
        (
            Always(reward=7.0),
            "Always gave the reward 7, outside of its declared range 0 to 1: declare it",
        ),
        (Always(reward=0.5, reward_range=(1.0, 2.0)), "gave the reward 0.5, outside of .* 1 to 2"),
        (Always(reward_range=(2.0, 1.0)), "reward_range = .* must be two finite numbers"),
    ],
)
def test_a_process_that_is_none(process, said):
    with pytest.raises((hw.SpecificationError, hw.DataError), match=said):
        hw.solve("QLearning", process, episodes=4, seeds=1)


def test_arrays_of_numpy_are_as_good_as_any():
    arrays = {"transition": ROWS, "reward": REWARD + 0.5, "initial": START}
    process = unchecked(hw.FiniteProcess, **arrays)
    assert hw.solve("QLearning", process, episodes=4, seeds=1).best == 0.5


@pytest.mark.parametrize(
    "change, said",
    [
        ({"reward": LOG.reward[:, :3]}, r"rewards of shape \(20, 3\): actions and rewards need"),
        ({"reward": LOG.reward[:3]}, r"rewards of shape \(3, 4\)"),
        ({"state": LOG.state.astype(float)}, "state has type float32, but whole numbers are need"),
        ({"action": [[0, 1], [0]]}, "action is not an array of whole numbers: rows differ in leng"),
        ({"reward": 100.0 * LOG.reward}, "the reward in episode .* is .*, outside of the range 0"),
        (
            {"state": LOG.state[:0], "action": LOG.action[:0], "reward": LOG.reward[:0]},
            "the log has no episodes, so that there is nothing to learn from",
        ),
    ],
)
def test_a_log_that_is_none(change, said):
    log = unchecked(hw.Episodes, LOG, **change)
    with pytest.raises(hw.DataError, match=said):
        hw.solve("PessimisticValueIteration", PROCESS, data=log, seeds=1)


def test_a_log_with_a_declared_range_is_certified_in_its_units():
    hundred = dataclasses.replace(LOG, reward=100.0 * LOG.reward)
    problem = dataclasses.replace(PROCESS.problem(), reward_range=jnp.asarray([0.0, 100.0]))
    large = hw.solve("PessimisticValueIteration", data=hundred, problem=problem, seeds=1)
    plain = hw.solve("PessimisticValueIteration", data=LOG, problem=PROCESS.problem(), seeds=1)
    np.testing.assert_allclose(large.bound, 100.0 * plain.bound, rtol=1e-5)
    told = hw.solve("PessimisticValueIteration", data=hundred, reward_range=(0.0, 100.0), seeds=1)
    plain = hw.solve("PessimisticValueIteration", data=LOG, seeds=1)
    np.testing.assert_array_equal(told.policies, plain.policies)


def test_a_range_that_the_process_leaves_is_refused():
    problem = dataclasses.replace(PROCESS.problem(), reward_range=jnp.asarray([0.0, 0.1]))
    with pytest.raises(hw.SpecificationError, match="rewards lie between 0 and 0"):
        hw.solve("UCBVI", PROCESS, problem=problem)


def test_offline_methods_do_not_act():
    said = "learns from logged episodes .*: give it data, such as hw.log_episodes.process, policy"
    for method in ("PEVI", "TabularCloning", "PessimisticValueIteration"):
        with pytest.raises(hw.SpecificationError, match=said):
            hw.solve(method, PROCESS)
    with pytest.raises(hw.SpecificationError, match=r"PEVI learns from a log, .*make the lo"):
        learn(hw.PEVI(), PROCESS.problem(), FreshEpisodes(PROCESS), 3, key=jax.random.key(0))


def test_what_is_wrong_withholds_the_bound_also_where_nobody_checks():
    """`learn` is compiled whole and raises nothing: the certificate is then no number."""
    problem = hw.FiniteProblem(4, 2, 5, initial=jnp.eye(4)[0])
    source = FreshEpisodes(Always(reward=7.0))
    found = learn(hw.UCBVI(), problem, source, 2, key=jax.random.key(0))
    assert np.isnan(hw.UCBVI().suboptimality_bound(found.state))
    with pytest.raises(hw.DataError, match="gave the reward 7"):
        source.check(found.source_state)
