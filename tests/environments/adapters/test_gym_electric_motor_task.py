"""The adapter on a stand-in of the same shape, and on the package where it is installed."""

import builtins
import dataclasses
import sys
import types
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from headwater.core.errors import SpecificationError
from headwater.environments.adapters.gym_electric_motor_task import FlatMotor
from headwater.environments.adapters.gymnasium_objects import from_gymnasium
from headwater.environments.check import check_environment
from headwater.environments.control.dc_motor import DCMotor
from headwater.environments.registry import make as make_task


def make(name: str, **options) -> Any:
    return make_task(name, **options)


NAME = "gym-electric-motor:Cont-CC-Stand-in-v0"


class StandIn(gymnasium.Env):
    """Shows a pair of float64 arrays and ends past a limit that its declared bounds exclude."""

    observation_space = gymnasium.spaces.Tuple(
        (
            gymnasium.spaces.Box(np.array([-1.0, 0.0]), 1.0, (2,), np.float64),
            gymnasium.spaces.Box(-0.5, 0.5, (1,), np.float64),
        )
    )

    def __init__(self, physical_system_wrappers=(), finite=False):
        self.late = sum(wrapper.steps for wrapper in physical_system_wrappers)
        box = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(3) if finite else box
        self.over = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.over, self.current, self.waiting = False, 0.0, [0.0] * self.late
        return self._shown(), {}

    def step(self, action):
        assert not self.over, "A reset is required before"
        volts = float(action - 1) if np.ndim(action) == 0 else float(action[0])
        self.waiting.append(volts)
        self.current += 0.4 * self.waiting.pop(0)
        self.over = abs(self.current) >= 1.0
        shown = self._shown()
        return shown, np.float64(-10.0 if self.over else -0.5), self.over, False, {}

    def _shown(self):
        return np.array([self.current, 1.0]), self.np_random.uniform(-0.5, 0.5, 1)


class Delay:
    def __init__(self, steps):
        self.steps = steps


@pytest.fixture
def package(monkeypatch):
    fake = types.ModuleType("gym_electric_motor")
    wrappers = types.ModuleType("gym_electric_motor.physical_system_wrappers")
    setattr(wrappers, "DeadTimeProcessor", Delay)  # noqa: B010
    fake.__path__ = []
    envs = types.ModuleType("gym_electric_motor.envs")
    setattr(envs, "StandIn", StandIn)  # noqa: B010
    for module in (fake, wrappers, envs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = EnvSpec("Cont-CC-Stand-in-v0", entry_point="gym_electric_motor.envs:StandIn")
    monkeypatch.setitem(gymnasium.registry, entry.id, entry)


def test_a_missing_package_is_explained(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "gym_electric_motor":
            raise ImportError("No module named 'gym_electric_motor'")
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "gym_electric_motor", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SpecificationError, match=r'pip install "headwater\[motor\]".*dc-motor'):
        make("gym-electric-motor:Cont-CC-PermExDc-v0", dead_time=1)


def test_state_reference_and_last_action_are_one_vector(package):
    task = make(NAME)
    assert task.spaces.observation_size == 4 and task.spaces.horizon == 1000
    assert make(NAME, last_action=0, max_episode_steps=9).spaces.observation_size == 3
    drive = task.open(1)
    start = drive.reset(np.array([3]))
    np.testing.assert_array_equal(start[0, [0, 1, 3]], [0.0, 1.0, 0.0])
    assert abs(start[0, 2]) <= 0.5
    step = drive.step(np.array([[0.5]], np.float32))
    np.testing.assert_allclose(step.observation[0, [0, 1, 3]], [0.2, 1.0, 0.5], rtol=1e-6)
    drive.close()


def test_the_step_past_a_limit_ends_the_episode_and_shows_by_how_much(package):
    drive = make(NAME).open(1)
    drive.reset(np.array([3]))
    steps = [drive.step(np.array([[1.0]], np.float32)) for _ in range(4)]
    assert [bool(step.terminal[0]) for step in steps] == [False, False, True, False]
    assert steps[2].next_observation[0, 0] == pytest.approx(1.2)
    assert steps[2].reward[0] == -10.0
    assert steps[2].observation[0, 0] == 0.0  # Of the next episode.
    drive.close()


def test_a_dead_time_delays_the_action(package):
    drive = make(NAME, dead_time=1).open(1)
    drive.reset(np.array([3]))
    currents = [drive.step(np.array([[0.5]], np.float32)).observation[0, 0] for _ in range(2)]
    np.testing.assert_allclose(currents, [0.0, 0.2], rtol=1e-6)
    drive.close()
    with pytest.raises(SpecificationError, match="dead_time = -1 must be a whole number"):
        make(NAME, dead_time=-1)


@pytest.mark.parametrize("finite", [False, True])
def test_the_adapter_keeps_its_promises(package, finite):
    check_environment(make(NAME, max_episode_steps=30, finite=finite))


def test_a_drive_of_ones_own_is_wrapped_by_hand():
    task = from_gymnasium(lambda: FlatMotor(StandIn(finite=True)), "own")
    assert task.spaces.observation_size == 6 and task.spaces.discrete
    drive = task.open(1)
    drive.reset(np.array([0]))
    observation = drive.step(np.array([2], np.int32)).observation
    np.testing.assert_array_equal(observation[0, 3:], [0.0, 0.0, 1.0])
    with pytest.raises(SpecificationError, match="no pair of a state and a reference"):
        FlatMotor(gymnasium.make("CartPole-v1"))


def test_unknown_drives_are_explained(package):
    with pytest.raises(SpecificationError, match="did you mean"):
        make("gym-electric-motor:Cont-CC-Stand-out-v0")


@pytest.mark.parametrize("name", ["Cont-CC-PermExDc-v0", "Finite-CC-PermExDc-v0"])
def test_the_package_keeps_its_promises(name):
    pytest.importorskip("gym_electric_motor", exc_type=ImportError)
    check_environment(make(f"gym-electric-motor:{name}", dead_time=1, max_episode_steps=40))


def test_the_package_has_the_current_of_the_built_in_motor():
    pytest.importorskip("gym_electric_motor", exc_type=ImportError)
    drive = make("gym-electric-motor:Cont-CC-PermExDc-v0").open(1)
    shown = drive.reset(np.array([0]))
    # The package's speed is constant, as that of a motor is which nothing can move.
    motor = DCMotor(inertia=1e12, friction=0.0, dead_time=False)
    state, _ = motor.reset(key=jax.random.key(0))
    state = dataclasses.replace(state, speed=jnp.asarray(shown[0, 0]))
    held = motor.flux * motor.speed_limit * shown[0, 0] / motor.supply
    step = jax.jit(lambda state, action: motor.step(state, action, key=jax.random.key(0))[0])
    for volts in np.random.default_rng(0).uniform(-0.1, 0.1, 20):
        action = np.array([held + volts - 0.1 * shown[0, 2]], np.float32)
        state = step(state, jnp.asarray(action))
        shown = drive.step(action[None]).next_observation
        np.testing.assert_allclose(state.current, shown[0, 2], atol=5e-3)
    drive.close()


def test_the_controller_tracks_in_the_package():
    pytest.importorskip("gym_electric_motor", exc_type=ImportError)
    controller = jax.jit(DCMotor(dead_time=False).controller())
    drive = make("gym-electric-motor:Cont-CC-PermExDc-v0").open(1)
    shown = drive.reset(np.array([0]))
    command, before, missed = jnp.zeros(1), jnp.zeros(1), []
    for _ in range(300):
        error = jnp.asarray(shown[:, 5] - shown[:, 2])
        command, before = controller(command, before, error), error
        asked = shown[0, 5]
        step = drive.step(np.asarray(command)[:, None])
        assert not step.terminal[0]
        shown = step.observation
        missed.append(abs(shown[0, 2] - asked))
    # Its reference moves by up to a tenth of the limit in a step.
    assert np.mean(missed) < 0.05
    drive.close()
