import builtins
import sys

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.adapters.host_interaction import host_episodes
from headwater.environments.check import check_environment
from headwater.environments.registry import make


def test_a_missing_envpool_is_explained(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "envpool":
            raise ImportError("No module named 'envpool'")
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "envpool", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SpecificationError, match=r'pip install "headwater\[envpool\]"'):
        make("envpool:Pendulum-v1", num_threads=3)


@pytest.fixture
def envpool():
    return pytest.importorskip("envpool", exc_type=ImportError)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Hopper-v5"])
def test_pools_keep_their_promises(envpool, name):
    task = make(f"envpool:{name}", num_threads=1)
    assert task.spaces.mismatch(make(name).spaces) is None
    assert task.spaces.horizon == make(name).spaces.horizon
    check_environment(task, steps=220)


def test_the_step_after_an_end_is_not_valid(envpool):
    environments = make("envpool:CartPole-v1", max_episode_steps=9, num_threads=1).open(2)
    environments.reset(np.array([1, 2]))
    # The first copy falls (8 to 10 steps), the second is stopped by the limit.
    steps = [environments.step(np.array([1, t % 2], np.int32)) for t in range(12)]
    valid = np.stack([step.valid for step in steps])
    over = np.stack([step.terminal | step.truncated for step in steps])
    np.testing.assert_array_equal(valid[1:], ~over[:-1])
    assert steps[8].truncated[1] and not steps[8].terminal[1] and not steps[9].valid[1]
    assert steps[9].reward[1] == 0.0
    np.testing.assert_array_equal(steps[9].observation[1], steps[9].next_observation[1])
    assert np.abs(steps[9].observation[1]).max() <= 0.05
    environments.close()


def test_a_continuation_is_new_but_repeatable(envpool):
    task = make("envpool:Pendulum-v1", num_threads=1)
    environments = task.open(2)
    assert not environments.exact
    start = environments.reset(np.array([5, 5]))
    np.testing.assert_array_equal(start[0], start[1])
    environments.step(np.zeros((2, 1), np.float32))
    saved = environments.save()
    first, second = task.open(2).load(saved), task.open(2).load(saved)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, start)


def test_pools_agree_with_gymnasium_on_a_fixed_policy(envpool):
    lean = np.array([0.1, 0.3, 1.0, 0.5], np.float32)
    act = lambda observation, t: (observation @ lean > 0).astype(np.int32)
    task = make("envpool:CartPole-v1", num_threads=1)
    seen = host_episodes(task, act, seeds=1, episodes=3, seed=0)
    np.testing.assert_array_equal(seen.returns, np.full((1, 3), 500.0))
    np.testing.assert_array_equal(seen.lengths, np.full((1, 3), 500))


def test_unknown_ids_and_options_are_explained(envpool):
    with pytest.raises(SpecificationError, match="did you mean HalfCheetah-v5"):
        make("envpool:HalfCheeta-v5")
    with pytest.raises(SpecificationError, match="EnvPool cannot make 'Pendulum-v1' with options"):
        make("envpool:Pendulum-v1", banana=1)
