import logging

import gymnasium
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.adapters.gymnasium_task import (
    GymnasiumEnvironments,
    GymnasiumTask,
    episode_seed,
)
from headwater.environments.registry import make


def _actions(task, steps, copies, seed=0):
    random = np.random.default_rng(seed)
    if task.spaces.discrete:
        return random.integers(0, task.spaces.action_size, (steps, copies))
    shape = (steps, copies, task.spaces.action_size)
    return random.uniform(-1.0, 1.0, shape).astype(np.float32)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Hopper-v5", "Pendulum-v1", "CartPole-v1"])
def test_what_was_saved_continues_to_the_bit(name):
    task = make(name)
    straight, resumed = task.open(2), task.open(2)
    straight.reset(np.array([1, 2]))
    for action in _actions(task, 137, 2):
        step = straight.step(action)
    # Copies that were used before, so that nothing of that may be left.
    resumed.reset(np.array([8, 9]))
    for action in _actions(task, 30, 2, seed=1):
        resumed.step(action)
    observation = resumed.load(straight.save())
    np.testing.assert_array_equal(observation, step.observation)
    for action in _actions(task, 200, 2, seed=2):
        here, there = straight.step(action), resumed.step(action)
        for a, b in zip(here, there):
            np.testing.assert_array_equal(a, b)
    for key, value in straight.save().items():
        np.testing.assert_array_equal(value, resumed.save()[key], err_msg=key)
    straight.close()
    resumed.close()


def test_steps_are_those_of_the_simulator_in_its_own_units():
    task = make("Pendulum-v1")
    ours, theirs = task.open(1), gymnasium.make("Pendulum-v1")
    start = ours.reset(np.array([3]))
    shown, _ = theirs.reset(seed=episode_seed(3, 0))
    np.testing.assert_array_equal(start[0], shown)
    for t, action in enumerate(_actions(task, 200, 1)):
        step = ours.step(action)
        shown, reward, terminal, truncated, _ = theirs.step(2.0 * action[0])
        np.testing.assert_allclose(step.next_observation[0], shown, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(step.reward[0], reward, rtol=1e-5)
        assert (step.terminal[0], step.truncated[0]) == (terminal, truncated)
        assert truncated == (t == 199)
    # The time limit: the state reached and the start of the next episode are both there.
    shown, _ = theirs.reset(seed=episode_seed(3, 1))
    np.testing.assert_array_equal(step.observation[0], shown)
    assert not np.array_equal(step.observation, step.next_observation)


def test_mujoco_writes_nothing_into_the_current_directory(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.chdir(tmp_path)
    environments = make("HalfCheetah-v5").open(1)
    environments.reset(np.array([0]))
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "headwater.mujoco"):
        environments._simulators[0].unwrapped.data.qvel[0] = 1e30
        environments.step(np.zeros((1, 6), np.float32))
    assert "simulation is unstable" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


class _Faulty(gymnasium.Env):
    """Shows or rewards with something that is not finite in its third step; no time limit."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,))
    action_space = gymnasium.spaces.Discrete(3, start=-1)

    def __init__(self, observation=0.0, reward=0.0):
        self.last = (observation, reward)
        self.given = []

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.given.append(action)
        self.time += 1
        observation, reward = self.last if self.time == 3 else (0.0, 0.0)
        return np.full(2, observation, np.float32), reward, False, False, {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"observation": np.nan}, r"observation that is not finite at step 3 .*\(copy 1\)"),
        ({"reward": np.inf}, r"reward that is not finite at step 3 .*\(copy 1\)"),
    ],
)
def test_numbers_that_are_not_finite_are_reported(fault, message):
    environments = GymnasiumEnvironments([_Faulty(), _Faulty(**fault)], "faulty")
    environments.reset(np.array([0, 1]))
    with pytest.raises(SpecificationError, match=message):
        for _ in range(3):
            environments.step(np.zeros(2, np.int32))


def test_discrete_actions_start_where_the_environment_counts_from():
    simulator = _Faulty()
    environments = GymnasiumEnvironments([simulator], "offset")
    environments.reset(np.array([0]))
    for action in range(3):
        environments.step(np.array([action]))
    assert simulator.given == [-1, 0, 1]


def test_the_record_grows_where_there_is_no_time_limit():
    environments = GymnasiumEnvironments([_Faulty()], "endless")
    environments.reset(np.array([0]))
    actions = np.random.default_rng(0).integers(0, 3, (2500, 1))
    for action in actions:
        environments.step(action)
    saved = environments.save()
    np.testing.assert_array_equal(saved["actions"], actions.T - 1)
    fresh = GymnasiumEnvironments([_Faulty()], "endless")
    fresh.load(saved)
    fresh.step(np.array([2]))
    assert fresh.save()["actions"].shape == (1, 2501)


def test_a_simulator_that_does_not_come_back_is_reported():
    environments = GymnasiumTask("CartPole-v1").open(1)
    environments.reset(np.array([0]))
    saved = environments.save()
    saved["observation"] += 1.0
    with pytest.warns(RuntimeWarning, match="did not come back to where it was saved"):
        environments.load(saved)


@pytest.mark.parametrize("actions", [np.zeros((2, 1), np.int32), np.zeros(2, np.float32)])
def test_actions_of_the_wrong_kind_are_refused(actions):
    environments = GymnasiumTask("CartPole-v1").open(2)
    environments.reset(np.array([0, 1]))
    with pytest.raises(SpecificationError, match="integer numbers of shape"):
        environments.step(actions)
