import gymnasium
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.adapters.gymnasium_objects import from_gymnasium
from headwater.environments.adapters.gymnasium_task import episode_seed
from headwater.environments.adapters.host_interaction import (
    host_episode_returns,
    host_episodes,
    host_transitions,
    spread_seeds,
)
from headwater.environments.registry import make


class _Varied(gymnasium.Env):
    """Episodes of 1 to 20 steps, drawn from the seed, with a reward of one for every step."""

    observation_space = gymnasium.spaces.Box(0.0, 20.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 21))
        return np.array([self.left], np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.array([self.left], np.float32), 1.0, self.left == 0, False, {}


class _Declared(_Varied):
    spec = gymnasium.envs.registration.EnvSpec("Varied-v0", max_episode_steps=50)


def _push(observation, t):
    return np.ones(observation.shape[:2], np.int32)


@pytest.mark.parametrize("copies", [1, 3, 40])
def test_every_episode_counts_once_however_long_it_is(copies):
    task = from_gymnasium(_Declared, "varied")
    seen = host_episodes(task, _push, seeds=5, episodes=40, seed=0, copies=copies)
    np.testing.assert_array_equal(seen.returns, seen.lengths)
    assert seen.lengths.min() >= 1 and seen.lengths.max() <= 20
    # Uniform on 1 … 20: mean 10.5, standard error 0.41; preferring short ones would give about 7.
    assert abs(seen.lengths.mean() - 10.5) < 1.6


def test_returns_are_those_of_the_simulator():
    task = make("CartPole-v1")
    by_step = lambda observation, t: np.full(observation.shape[:2], t % 2, np.int32)
    ours = host_episodes(task, by_step, seeds=2, episodes=2, seed=3, copies=2)
    for i, seed in enumerate(spread_seeds(3, 4)):
        simulator = gymnasium.make("CartPole-v1")
        simulator.reset(seed=episode_seed(int(seed), 0))
        total, over = 0.0, False
        while not over:
            _, reward, terminal, truncated, _ = simulator.step(int(total) % 2)
            total, over = total + float(reward), terminal or truncated
        assert ours.returns[i // 2, i % 2] == total


def test_each_seed_is_acted_for_by_its_own_policy():
    task = make("CartPole-v1", max_episode_steps=60)

    def act(observation, t):
        lean = observation @ np.array([0.1, 0.3, 1.0, 0.5], np.float32) > 0
        return np.stack([lean[0], np.ones_like(lean[1])]).astype(np.int32)

    returns = host_episode_returns(task, act, seeds=2, episodes=4, seed=0)
    assert (returns[0] == 60).all() and (returns[1] < 12).all()


def test_tasks_without_a_time_limit_are_refused():
    task = from_gymnasium(_Varied, "endless")
    with pytest.raises(SpecificationError, match="endless has no time limit"):
        host_episodes(task, _push, seeds=1, episodes=1, seed=0)


def test_logged_rows_join_within_episodes():
    task = make("CartPole-v1")
    rows = host_transitions(task, _push, steps=103, seed=1, copies=4)
    assert all(len(column) == 103 for column in rows.values())
    np.testing.assert_array_equal(np.bincount(rows["copy"]), [26, 26, 26, 25])
    over = rows["terminal"] | rows["truncated"]
    joined = (rows["observation"][1:] == rows["next_observation"][:-1]).all(axis=1)
    np.testing.assert_array_equal(joined, ~over[:-1])
    np.testing.assert_array_equal(np.flatnonzero(rows["truncated"]), [25, 51, 77, 102])
    again = host_transitions(task, _push, steps=103, seed=1, copies=4)
    for name, column in rows.items():
        np.testing.assert_array_equal(column, again[name])
