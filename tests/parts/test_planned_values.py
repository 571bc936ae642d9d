"""What methods certify, where rewards are not in [0, 1]: never negative, never below the truth."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.environments.tabular.finite import random_process
from headwater.methods.tabular.offline.pessimistic_value_iteration import (
    PessimisticValueIteration,
)
from headwater.methods.tabular.online.demonstration_regularised import DemonstrationRegularised
from headwater.methods.tabular.online.euler import EULER
from headwater.methods.tabular.online.mvp import MVP
from headwater.methods.tabular.online.ucbvi import UCBVI
from headwater.methods.tabular.reward_free.rf_ucrl import RFUCRL
from headwater.ops.tabular.planning import expected_return, optimal_values, uniform_policy
from headwater.sources.episodes import log_episodes

UNIT = random_process(states=2, actions=2, horizon=2, key=jax.random.key(3))
RUNS = 100
RANGES = {"1": (0.0, 1.0), "3": (0.0, 3.0), "10": (0.0, 10.0), "-5 to 5": (-5.0, 5.0)}
# Practical scales for small logs and none at all, so that policies are wrong often.
METHODS = {
    "UCBVI": UCBVI(bonus_scale=0.01),
    "MVP": MVP(bonus_scale=0.0),
    "EULER": EULER(bonus_scale=0.01),
    "PessimisticValueIteration": PessimisticValueIteration(penalty_scale=0.01),
    "DemonstrationRegularised": DemonstrationRegularised(kl_weight=0.01, bonus_scale=0.00003),
    "RFUCRL": RFUCRL(bonus_scale=0.02),
}


def between(low, high):
    reward = low + (high - low) * UNIT.reward
    return dataclasses.replace(UNIT, reward=reward, declared_range=jnp.asarray([low, high]))


@functools.cache
def logs(episodes: int):
    """Of all runs, with rewards in [0, 1]: what is done does not depend on their range."""
    play = lambda key: log_episodes(UNIT, uniform_policy(UNIT), episodes=episodes, key=key)
    return jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), RUNS))


@eqx.filter_jit
def certified_and_true(method, process, data):
    problem = process.problem(known_reward=isinstance(method, RFUCRL))
    best = optimal_values(process).value[0] @ process.initial
    low, high = process.declared_range
    key = jax.random.key(0)

    def one(data):
        data = dataclasses.replace(data, reward=low + (high - low) * data.reward)
        state = method.update(method.init(problem, key=key), data, key=key)[0]
        gap = best - expected_return(process, method.policy(state, explore=False))
        return method.suboptimality_bound(state), gap

    return jax.vmap(one)(data)


@pytest.mark.parametrize("name", METHODS)
def test_a_certificate_is_never_negative_and_never_below_the_truth(name):
    """800 runs of each method: 100 logs of two lengths for each of four ranges of rewards.

    The range does not enter the compiled program, so that it is compiled once for each length.
    """
    for low, high in RANGES.values():
        most = UNIT.horizon * (high - low)
        for episodes, tight in ((4, 1.0), (2000, 0.9)):
            bound, gap = (
                np.asarray(x)
                for x in certified_and_true(METHODS[name], between(low, high), logs(episodes))
            )
            assert (bound >= 0.0).all() and (gap >= -1e-5 * most).all()
            assert (bound >= gap).all()
            # It says something once there are enough episodes, and never more than is true.
            assert (bound <= (tight + 1e-6) * most).all()
        assert len(bound) == RUNS


@pytest.mark.parametrize("name", METHODS)
def test_rewards_in_other_units_change_no_policy_and_scale_the_bound(name):
    bound, gap = certified_and_true(METHODS[name], between(0.0, 1.0), logs(4))
    method = METHODS[name]
    if isinstance(method, DemonstrationRegularised):
        method = dataclasses.replace(method, kl_weight=4.0 * method.kl_weight)
    scaled, scaled_gap = certified_and_true(method, between(-2.0, 2.0), logs(4))
    np.testing.assert_allclose(scaled, 4.0 * bound, rtol=1e-3)
    np.testing.assert_allclose(scaled_gap, 4.0 * gap, atol=1e-3)


def test_what_explores_without_rewards_certifies_no_policy():
    """After ever so many episodes: what it learned is about plans for rewards, not about itself."""
    state = RFUCRL().init(UNIT.problem(), key=jax.random.key(0))
    state = RFUCRL().update(state, jax.tree.map(lambda x: x[0], logs(2000)), key=jax.random.key(0))
    assert RFUCRL().suboptimality_bound(state[0]) == UNIT.horizon
    assert RFUCRL().planning_bound(state[0]) < UNIT.horizon
