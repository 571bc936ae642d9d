import subprocess
import sys

import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.adapters.gymnasium_task import GymnasiumTask
from headwater.environments.environment import describe_task
from headwater.environments.registry import environment_names, make


def test_the_pure_environments_are_discovered():
    known = ("cart-pole", "mountain-car", "mountain-car-discrete", "pendulum", "point-maze")
    assert set(known) <= set(environment_names())
    for name in environment_names():
        assert make(name).name == name


def test_an_environment_of_another_module_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gymnasium.register('Mine-v0', PendulumEnv, max_episode_steps=11)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = make("my_tasks:Mine-v0")
    assert task.name == "my_tasks:Mine-v0" and task.spaces.horizon == 11


def test_names_are_listed_without_importing_jax():
    program = (
        "import sys; from headwater.environments.catalogue import environment_names; "
        "assert 'pendulum' in environment_names(); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_options_reach_the_environment():
    assert make("pendulum", gravity=9.0).gravity == 9.0
    assert make("CartPole-v1", max_episode_steps=7).spaces.horizon == 7


def test_a_gymnasium_id_makes_a_task_that_is_described():
    task = make("Pendulum-v1")
    assert task == GymnasiumTask("Pendulum-v1") and hash(task) == hash(GymnasiumTask("Pendulum-v1"))
    assert describe_task(task) == {
        "name": "Pendulum-v1",
        "observation_size": 3,
        "action_size": 1,
        "actions": "continuous",
        "horizon": 200,
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pendulu", {}, "did you mean pendulum"),
        ("HalfCheeta-v5", {}, "did you mean HalfCheetah-v5"),
        ("Pendulum-v9", {}, "unknown environment 'Pendulum-v9': did you mean Pendulum-v1"),
        ("qqqqqqqqqq", {}, "none of aliased-grid, .*nor a Gymnasium id such as HalfCheetah-v5"),
        ("no_such_module:Thing-v0", {}, "there is no module 'no_such_module'"),
        ("pendulum", {"gravty": 1.0}, "pendulum: unknown option 'gravty': did you mean gravity"),
        ("CartPole-v1", {"banana": 3}, "cannot make 'CartPole-v1' with options"),
        ("CartPole-v1", {"sutton_barto_reward": {}}, "option sutton_barto_reward is a dict"),
        ("Pendulum-v1", {"g": float("nan")}, "option g is nan; options must be finite numbers"),
        ("Pendulum-v1", {"name": "x"}, "cannot make 'Pendulum-v1' with options {'name': 'x'}"),
        ("pendulum", {"name": 1.0}, "pendulum: unknown option 'name'"),
        ("pendulum", {"mass": float("inf")}, "option mass = inf must be a number"),
        ("pendulum", {"mass": 10**400}, "must be a number"),
    ],
)
def test_a_wrong_name_or_option_is_explained(name, options, message):
    with pytest.raises(SpecificationError, match=message):
        make(name, **options)
