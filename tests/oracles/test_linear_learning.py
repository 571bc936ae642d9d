"""Methods for linear processes and near demonstrations: they learn, and what they promise is so."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.linear.linear import linear_lock, random_linear_process
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.exact import best_return, cumulative, regret_of
from headwater.methods.linear.lsvi_ucb import LSVIUCB
from headwater.methods.linear.pessimistic_lsvi import PEVI
from headwater.methods.tabular.offline.tabular_cloning import TabularCloning
from headwater.methods.tabular.online.demonstration_regularised import DemonstrationRegularised
from headwater.ops.tabular.planning import (
    expected_return,
    occupancy,
    optimal_values,
    soft_values,
    uniform_policy,
)
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes

LINEAR = random_linear_process(
    states=3, actions=2, horizon=2, features=2, noisy=True, key=jax.random.key(3)
)
BEST = optimal_values(LINEAR.process)


def test_lsvi_ucb_is_optimistic_with_the_constants_of_the_theorem():
    process, method = LINEAR.process, LSVIUCB(episodes=10_000.0)

    @jax.jit
    def one(key):
        data = log_episodes(process, uniform_policy(process), episodes=10_000, key=key)
        state = method.init(LINEAR.problem(), key=key)
        state = method.update(state, data, key=key)[0]
        return state.action_value

    found = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 20)))
    above = np.all(found >= np.asarray(BEST.action_value) - 1e-4, axis=(1, 2, 3))
    assert np.mean(above) >= 0.9
    # It says something: the bound has come down from the horizon.
    assert found.max() < 1.95


def test_lsvi_ucb_opens_a_lock_that_value_iteration_without_a_bonus_never_opens():
    lock = linear_lock(states=12, actions=3, horizon=3, features=3, key=jax.random.key(0))
    regrets = []
    for scale in (0.03, 0.0):
        method = LSVIUCB(bonus_scale=scale, episodes=300.0, highest_return=1.0 / 3.0)
        stage = Stage(
            "learn", method, FreshEpisodes(lock.process), 300, measure=regret_of(lock.process)
        )
        rows = run([stage], lock.problem(), seeds=4, layout="vmap", logs=3).metrics
        regrets.append(cumulative(rows)[1])
    optimistic, greedy = regrets
    assert np.all(optimistic[:, -1] == optimistic[:, 1]), "it still loses at the end"
    assert optimistic[:, -1].max() < 60.0 < 200.0 < greedy[:, -1].mean()


def test_pevi_is_pessimistic_and_within_its_bound_on_many_logs():
    process, best = LINEAR.process, float(best_return(LINEAR.process))
    visited = occupancy(process, BEST.policy)
    method = PEVI(penalty_scale=0.2)
    behaviour = 0.8 * BEST.policy + 0.2 * uniform_policy(process)

    @jax.jit
    def one(key):
        data = log_episodes(process, behaviour, episodes=60, key=key)
        state = method.init(LINEAR.problem(), key=key)
        state = method.update(state, data, key=key)[0]
        worth = expected_return(process, method.policy(state, explore=False))
        claimed = process.initial @ jnp.max(state.action_value[0], axis=-1)
        return worth, claimed, 2.0 * jnp.sum(visited * state.penalty)

    worth, claimed, bound = (
        np.asarray(x) for x in jax.vmap(one)(jax.random.split(jax.random.key(0), 200))
    )
    assert np.mean(claimed <= worth + 1e-5) >= 0.9
    assert np.mean(best - worth <= bound + 1e-5) >= 0.9
    assert bound.mean() < 2.0, "the bound says nothing"


def test_cloning_then_learning_near_the_clone_finds_the_best_policy():
    process = random_process(
        states=3, actions=3, horizon=3, concentration=0.5, key=jax.random.key(2)
    )
    expert = soft_values(process, 0.05).policy
    log = log_episodes(process, expert, episodes=50, key=jax.random.key(0))

    def begin(outcomes, problem, key):
        clone = outcomes["clone"]
        anchor = clone.method.policy(clone.state, explore=False)
        return DemonstrationRegularised().around(problem, anchor, key=key)

    stages = [
        Stage("clone", TabularCloning(), WholeLog(log), 1),
        Stage(
            "learn",
            DemonstrationRegularised(temperature=0.05, bonus_scale=1e-4),
            FreshEpisodes(process),
            500,
            begin=begin,
            measure=regret_of(process, explore=False),
        ),
    ]
    result = run(stages, process.problem(), seeds=4, layout="vmap", logs=10)
    rows = [row for row in result.metrics if row["stage"] == "learn"]
    regret = np.asarray([row["metrics"]["regret"] for row in rows])
    assert regret[-1].mean() < 0.03 < float(best_return(process))
    assert regret[-1].mean() < regret[0].mean()
    anchor = TabularCloning().policy(
        jax.tree.map(lambda x: x[0], result.outcomes["clone"].state), explore=False
    )
    np.testing.assert_allclose(result.outcomes["learn"].state.anchor[0], anchor)


def test_the_gap_covers_the_regularised_shortfall_with_the_constants_of_the_theorem():
    process = dataclasses.replace(
        random_process(states=2, actions=2, horizon=2, key=jax.random.key(4)), noisy=True
    )
    anchor, temperature = jnp.full(process.reward.shape, 0.5), 1.0
    method = DemonstrationRegularised(temperature)
    best = soft_values(process, temperature)
    # Soft values count entropy; against a uniform anchor that is divergence up to a constant.
    constant = temperature * process.horizon * np.log(process.actions)

    @jax.jit
    def one(key):
        data = log_episodes(process, uniform_policy(process), episodes=20_000, key=key)
        state = method.around(process.problem(), anchor, key=key)
        state = method.update(state, data, key=key)[0]
        judged = method.policy(state, explore=False)
        divergence = jnp.sum(judged * jnp.log(judged / anchor), axis=-1)
        reward = process.reward - temperature * divergence[:, :, None]
        worth = expected_return(dataclasses.replace(process, reward=reward), judged)
        return process.initial @ best.value[0] - constant - worth, process.initial @ state.gap

    short, gap = (np.asarray(x) for x in jax.vmap(one)(jax.random.split(jax.random.key(0), 20)))
    assert np.all(short >= -1e-5) and np.mean(short <= gap + 1e-6) >= 0.9
    assert gap.max() < 1.8, "the gap is the horizon: it says nothing"
