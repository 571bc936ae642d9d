"""Fresh episodes follow the process and the policy; logged ones come whole."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProcess, draw_index
from headwater.core.method import Agent
from headwater.environments.tabular.finite import random_process
from headwater.methods.tabular.online.ucbvi import UCBVI
from headwater.ops.tabular.planning import occupancy
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes, play_each


@pytest.fixture(scope="module")
def process():
    return random_process(states=3, actions=2, horizon=3, key=jax.random.key(3))


@pytest.fixture(scope="module")
def policy():
    return jax.random.dirichlet(jax.random.key(4), jnp.ones(2), (3, 3))


def test_episodes_have_the_frequencies_of_the_model(process, policy):
    data = log_episodes(process, policy, episodes=20_000, key=jax.random.key(0))
    expected = np.asarray(occupancy(process, policy))
    for step in range(3):
        seen = np.zeros((3, 2))
        np.add.at(seen, (data.state[:, step], data.action[:, step]), 1 / 20_000)
        np.testing.assert_allclose(seen, expected[step], atol=0.015)
        rows = np.zeros((3, 2, 3))
        at = data.state[:, step], data.action[:, step], data.state[:, step + 1]
        np.add.at(rows, at, 1.0)
        visits = rows.sum(-1, keepdims=True)
        # Five standard errors of a frequency.
        gap = np.abs(rows / visits - process.transition[step])
        assert np.all(gap < 2.5 / np.sqrt(visits))
    np.testing.assert_array_equal(
        data.reward, process.reward[jnp.arange(3), data.state[:, :-1], data.action]
    )


def test_noisy_rewards_and_costs_are_zero_or_one_with_the_expectation(process, policy):
    cost = jax.random.uniform(jax.random.key(1), (3, 3, 2, 2))
    noisy = dataclasses.replace(process, cost=cost, noisy=True)
    data = log_episodes(noisy, policy, episodes=20_000, key=jax.random.key(0))
    assert set(np.unique(data.reward)) == {0.0, 1.0} == set(np.unique(data.cost))
    at = jnp.arange(3), data.state[:, :-1], data.action
    gap = np.mean(data.reward - process.reward[at], axis=0)
    assert np.all(np.abs(gap) < 0.02)
    assert np.all(np.abs(np.mean(data.cost - cost[at], axis=0)) < 0.02)
    # One number must not decide both.
    together = np.corrcoef(np.asarray(data.cost - cost[at])[:, 0].T)[0, 1]
    assert abs(together) < 0.03


def test_an_index_without_probability_is_never_drawn():
    probabilities = jnp.asarray([0.0, 0.5, 0.0, 0.5, 0.0])
    uniform = jnp.asarray([0.0, 0.25, 0.4999999, 0.5, 0.75, 1.0 - 2.0**-24])
    drawn = jax.vmap(lambda u: draw_index(probabilities, u))(uniform)
    assert drawn.tolist() == [1, 1, 1, 3, 3, 3]


def test_every_policy_and_task_gets_an_episode_of_its_own(process):
    tasks = jax.tree.map(lambda x: jnp.stack([x, x]), process)
    tasks = eqx.tree_at(lambda p: p.reward, tasks, tasks.reward.at[1].set(7.0))
    uniform = jnp.full((2, 5, 3, 3, 2), 0.5)

    class Explorer(eqx.Module):
        def __call__(self):
            return uniform

    data = eqx.filter_vmap(lambda p, u: play_each(p, u, key=jax.random.key(0)))(tasks, uniform)
    assert data.state.shape == (2, 5, 4) and data.action.shape == (2, 5, 3)
    assert np.all(data.reward[1] == 7.0) and np.all(data.reward[0] < 7.0)
    assert len(np.unique(np.asarray(data.state[0]), axis=0)) > 1


def test_steps_are_counted_and_logs_come_whole(process, policy):
    method = UCBVI()
    agent = Agent(method, method.init(process.problem(), key=jax.random.key(0)))
    source = FreshEpisodes(process)
    state = source.init(key=jax.random.key(0))
    for _ in range(2):
        state, data = source.draw(state, agent, key=jax.random.key(1))
    assert data.state.shape == (4,) and int(source.environment_steps(state)) == 6
    log = log_episodes(process, policy, episodes=7, key=jax.random.key(0))
    whole = WholeLog(log)
    _, drawn = whole.draw(whole.init(key=jax.random.key(0)), agent, key=jax.random.key(1))
    assert drawn is log


def test_a_process_is_told_apart_from_what_a_method_is_told(process):
    assert process.problem().reward is None
    assert process.problem(known_reward=True).reward is process.reward
    assert isinstance(process, FiniteProcess) and process.problem().tasks is None
