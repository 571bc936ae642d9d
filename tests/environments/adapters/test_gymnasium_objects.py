import functools

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from headwater.core.errors import SpecificationError
from headwater.environments.adapters.gymnasium_objects import from_gymnasium
from headwater.environments.adapters.host_interaction import host_episodes, host_transitions
from headwater.environments.check import check_environment


class _Counter(gymnasium.Env):
    """Counts from the seed's last digit; ends after four steps, every other time by a limit."""

    observation_space = gymnasium.spaces.Dict(
        {
            "count": gymnasium.spaces.Box(-100.0, 100.0, ()),
            "episode": gymnasium.spaces.Box(-100.0, 100.0, (1,)),
        }
    )
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))
    episode = 0

    def _show(self):
        return {
            "count": np.asarray(self.count, np.float32),
            "episode": np.asarray([self.episode], np.float32),
        }

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        self.count = 0
        return self._show(), {}

    def step(self, action):
        self.count += 1
        over = self.count == 4
        odd = self.episode % 2 == 1
        return self._show(), float(action[0]), over and odd, over and not odd, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_all_ways_of_resetting_show_the_same_episodes(mode):
    task = from_gymnasium(
        lambda copies: SyncVectorEnv([_Counter] * copies, autoreset_mode=mode), "counters"
    )
    act = lambda observation, t: np.full((*observation.shape[:2], 1), 0.5, np.float32)
    rows = host_transitions(task, act, steps=20, seed=0, copies=2)
    # Components in the order of the keys: the count, then the number of the episode.
    count = np.tile([0, 1, 2, 3], 5)
    episode = np.repeat([1, 2, 3, 1, 2], 4)
    ends = count == 3
    episode, count, ends = (
        np.concatenate([x[:10], x[:10]]) for x in (np.repeat([1, 2, 3], 4), count, ends)
    )
    np.testing.assert_array_equal(rows["observation"], np.stack([count, episode], 1))
    np.testing.assert_array_equal(rows["next_observation"], np.stack([count + 1, episode], 1))
    np.testing.assert_array_equal(rows["reward"], np.ones(20))
    np.testing.assert_array_equal(rows["terminal"], ends & (episode % 2 == 1))
    cut = np.isin(np.arange(20), [9, 19])
    np.testing.assert_array_equal(rows["truncated"], (ends & (episode % 2 == 0)) | cut)
    np.testing.assert_array_equal(rows["copy"], np.repeat([0, 1], 10))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_keep_their_promises(mode):
    one = functools.partial(gymnasium.make, "CartPole-v1", max_episode_steps=30)
    task = from_gymnasium(lambda copies: SyncVectorEnv([one] * copies, autoreset_mode=mode))
    assert task.spaces.horizon == 30
    check_environment(task)


def test_worker_processes_can_be_used():
    one = functools.partial(gymnasium.make, "CartPole-v1")
    task = from_gymnasium(
        lambda n: gymnasium.vector.AsyncVectorEnv([one] * n, context="spawn"), "workers"
    )
    act = lambda observation, t: np.ones(observation.shape[:2], np.int64)
    lengths = host_episodes(task, act, seeds=1, episodes=3, seed=0, copies=2).lengths
    assert ((lengths >= 8) & (lengths <= 11)).all()


def test_a_vector_environment_with_one_random_stream_can_be_used():
    task = from_gymnasium(
        lambda n: gymnasium.make_vec("CartPole-v1", n, vectorization_mode="vector_entry_point")
    )
    check_environment(task, steps=60)


def test_a_vector_environment_serves_only_its_own_number_of_copies():
    vector = SyncVectorEnv([functools.partial(gymnasium.make, "CartPole-v1")] * 2)
    task = from_gymnasium(vector)
    assert task.open(2).reset(np.array([0, 1])).shape == (2, 4)
    with pytest.raises(SpecificationError, match=r"3 copies are needed, but .* has 2: pass"):
        task.open(3)


def test_copies_are_made_of_a_registered_environment():
    mine = gymnasium.wrappers.RescaleAction(
        gymnasium.make("Pendulum-v1", g=5.0), np.float32(-1.0), np.float32(1.0)
    )
    task = from_gymnasium(mine)
    assert task.name == "Pendulum-v1" and task.spaces.action.high == (1.0,)
    copies = task.open(2)
    assert copies._simulators[0].unwrapped.g == 5.0
    assert copies._simulators[0].unwrapped is not mine.unwrapped
    check_environment(task, steps=40)


def test_factories_and_their_faults():
    assert from_gymnasium(_Counter, "mine").spaces.observation_size == 2
    with pytest.raises(SpecificationError, match="pass a function that makes one"):
        from_gymnasium(_Counter())
    with pytest.raises(SpecificationError, match="not a int"):
        from_gymnasium(3)


def test_a_time_limit_is_found_in_the_wrappers_of_an_environment_without_a_specification():
    def make():
        bare = gymnasium.make("CartPole-v1").unwrapped
        bare.spec = None
        return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.TimeLimit(bare, 40), 30)

    assert from_gymnasium(make, "cart").spaces.horizon == 30
