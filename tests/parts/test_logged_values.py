"""Where values start and what units they have, against arithmetic and against each other."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.catalogue import build_method
from headwater.datasets.dataset import Dataset
from headwater.evidence.horizon_logs import Cell, horizon_log
from headwater.methods.control.offline.iql import IQL
from headwater.parts.logged_values import level_of_values, scale_of_rewards

CONTINUOUS = ("IQL", "AWAC", "TD3BC", "ReBRAC", "CQL", "CalQL", "SACN", "EDAC")
DISCRETE = ("DiscreteCQL", "DQN")


def log(rewards, terminals, *, discrete: bool = False) -> Dataset:
    """Rows of two observations each, as many as there are rewards."""
    rows = len(rewards)
    random = np.random.default_rng(3)
    actions = random.integers(0, 3, rows) if discrete else random.uniform(-1, 1, (rows, 1))
    seen = random.normal(size=(2, rows, 2))
    options = {"action_count": 3} if discrete else {"action_low": [-1.0], "action_high": [1.0]}
    return Dataset.from_arrays(
        seen[0],
        actions,
        rewards,
        terminals,
        next_observations=seen[1],
        discrete=discrete,
        **options,
    )


REWARDS = np.asarray([-4.0, -6.0, -5.0, -5.0, -7.0, -3.0])
ENDS = np.asarray([False, False, True, False, False, True])


def statistics(rewards, terminals):
    found = log(rewards, terminals).spaces.statistics
    assert found is not None
    return found


def test_the_level_satisfies_the_bellman_equation_on_average():
    known = statistics(REWARDS, ENDS)
    level = float(level_of_values(known, 0.9))
    targets = REWARDS + 0.9 * np.where(ENDS, 0.0, level)
    assert level == pytest.approx(targets.mean(), rel=1e-5)
    # One-step episodes: the mean reward, whatever the discount.
    assert float(level_of_values(statistics(REWARDS, np.ones(6, bool)), 1.0)) == pytest.approx(-5.0)


def test_without_discount_and_ends_it_is_the_mean_return_to_go():
    known = statistics(REWARDS, np.zeros(6, bool))
    to_go = np.cumsum(REWARDS[::-1])[::-1]
    assert float(level_of_values(known, 1.0)) == pytest.approx(to_go.mean(), rel=1e-5)
    assert float(level_of_values(known, 0.99)) == pytest.approx(-500.0, rel=1e-4)


def test_scales_are_those_of_the_log():
    known = statistics(REWARDS, ENDS)
    assert float(scale_of_rewards(known, "deviation")) == pytest.approx(1 / REWARDS.std(), rel=1e-5)
    # Both episodes return -15.
    assert float(scale_of_rewards(known, "return_range")) == 1.0
    moved = statistics(REWARDS + ENDS * np.asarray([0, 0, 0, 0, 0, 5.0]), ENDS)
    assert float(scale_of_rewards(moved, "return_range")) == pytest.approx(200.0, rel=1e-5)
    same = statistics(np.full(6, -0.1), ENDS)
    assert float(scale_of_rewards(same, "deviation")) == 1.0


@pytest.mark.parametrize("name", CONTINUOUS + DISCRETE)
def test_every_method_starts_at_the_level_of_the_log_in_units_of_reward(name):
    data = log(REWARDS, ENDS, discrete=name in DISCRETE)
    level = float(level_of_values(data.spaces.statistics, 0.99))

    def values(**fields):
        method = build_method(name, {"hidden_sizes": (4,), **fields})
        state = eqx.filter_jit(method.init)(data.spaces, key=jax.random.key(0))
        observations, actions = jnp.asarray(data.observations), jnp.asarray(data.actions)
        return np.asarray(jax.vmap(lambda o, a: method.value(state, o, a))(observations, actions))

    zero = values(initial_level="zero")
    np.testing.assert_allclose(values(), zero + level, rtol=1e-4, atol=1e-4)
    # Without the scale the network's own numbers are in units of reward.
    unscaled = values(initial_level="zero", reward_scale=1.0)
    np.testing.assert_allclose(unscaled * REWARDS.std(), zero, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ("IQL", "CalQL", "DiscreteCQL"))
def test_rewards_in_other_units_teach_the_same(name):
    """A power of two, so that not even rounding differs."""
    data = log(REWARDS, ENDS, discrete=name in DISCRETE)
    other = log(64.0 * REWARDS, ENDS, discrete=name in DISCRETE)
    method = build_method(name, {"hidden_sizes": (4,)})

    @eqx.filter_jit
    def taught(spaces, rows):
        state = method.init(spaces, key=jax.random.key(0))
        return method.update(state, rows, key=jax.random.key(1))[0]

    one, two = (
        taught(each.spaces, jax.tree.map(jnp.asarray, each.transitions(0.99)))
        for each in (data, other)
    )
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        if left.shape or float(left) == float(right):
            np.testing.assert_array_equal(left, right)
        else:
            # The scale itself.
            assert float(left) == 64.0 * float(right)


def test_without_a_log_nothing_is_raised_and_only_a_number_scales():
    spaces = dataclasses.replace(log(REWARDS, ENDS).spaces, statistics=None)
    key = jax.random.key(0)
    plain, told, zero = (
        IQL(hidden_sizes=(4,), **fields).init(spaces, key=key)
        for fields in ({}, {"reward_scale": 3.0}, {"initial_level": "zero"})
    )
    assert float(plain.normaliser.reward_scale) == 1.0
    assert float(told.normaliser.reward_scale) == 3.0
    for left, right in zip(jax.tree.leaves(plain.networks), jax.tree.leaves(zero.networks)):
        np.testing.assert_array_equal(left, right)


def test_the_share_closed_is_exact():
    cell = horizon_log(Cell(5, -5.0, 100.0), instance=0, rows=100)
    assert cell.data.episodes == 20 and cell.data.terminals.sum() == 20
    moved = horizon_log(Cell(5, 0.0, 1.0), instance=0, rows=100)
    np.testing.assert_allclose(
        cell.data.rewards, 100.0 * (moved.data.rewards - 5.0), rtol=1e-5, atol=1e-3
    )
    one = horizon_log(Cell(1, 0.0, 1.0), instance=0, rows=100)
    assert one.share(one.reward.argmax(1)[None]) == pytest.approx(1.0)
    lowest = one.share(one.reward.argmin(1)[None])
    gap = one.reward.max(1).mean() - one.reward.mean()
    assert lowest == pytest.approx((one.reward.min(1).mean() - one.reward.mean()) / gap)


def test_logs_that_a_time_limit_cuts_differ_in_their_ends_alone():
    make = lambda **how: horizon_log(Cell(5, -5.0, 1.0), instance=0, rows=100, **how).data
    ended, cut = make(), make(time_limit=True)
    assert not cut.terminals.any()
    np.testing.assert_array_equal(cut.truncations, ended.terminals)
    np.testing.assert_array_equal(cut.rewards, ended.rewards)
    np.testing.assert_array_equal(cut.next_observations, ended.next_observations)
    # Nothing ends, so that the level is that of a reward for ever.
    level = float(level_of_values(cut.spaces.statistics, 0.99))
    assert level == pytest.approx(100.0 * cut.rewards.mean(), rel=1e-4)
