"""Counting, and what counts certify, against loops in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.ops.sums import CompensatedSum
from headwater.ops.tabular.bonus import highest_values, reward_width
from headwater.ops.tabular.counts import (
    Counts,
    certified_gap,
    count,
    estimated_transition,
    estimated_unit_reward,
    expected_next,
    mean_reward,
    no_counts,
    reward_variance,
)

HORIZON, STATES, ACTIONS = 2, 3, 2
SIZES = (HORIZON, STATES, ACTIONS)
PROBLEM = FiniteProblem(STATES, ACTIONS, HORIZON, jnp.asarray([0.5, 0.25, 0.25]))


def some_episodes(number=400):
    random = np.random.default_rng(1)
    state = random.choice(STATES, (number, HORIZON + 1), p=(0.7, 0.3, 0.0))
    action = random.integers(ACTIONS, size=(number, HORIZON))
    return Episodes(
        jnp.asarray(state, jnp.int32),
        jnp.asarray(action, jnp.int32),
        jnp.asarray(random.random((number, HORIZON)), jnp.float32),
    )


def loop(data):
    following, rewards = np.zeros((*SIZES, STATES)), [[] for _ in range(np.prod(SIZES))]
    states, actions, earned = (np.asarray(x) for x in (data.state, data.action, data.reward))
    for state, action, reward in zip(states, actions, earned, strict=True):
        for h in range(HORIZON):
            following[h, state[h], action[h], state[h + 1]] += 1
            rewards[np.ravel_multi_index((h, state[h], action[h]), SIZES)].append(reward[h])
    return following, rewards


def test_counts_and_estimates():
    data = some_episodes()
    counts = count(no_counts(PROBLEM), data, PROBLEM)
    following, rewards = loop(data)
    visits = following.sum(-1)
    np.testing.assert_array_equal(counts.following, following)
    np.testing.assert_array_equal(counts.visits, visits)
    mean = [np.mean(r) if r else 0.0 for r in rewards]
    spread = np.asarray([np.var(r) if r else 0.0 for r in rewards]).reshape(SIZES)
    expected = np.asarray(mean).reshape(SIZES)
    np.testing.assert_allclose(estimated_unit_reward(counts, PROBLEM), expected, rtol=1e-5)
    np.testing.assert_allclose(reward_variance(counts), spread, atol=1e-6)
    times = np.maximum(visits, 1)
    width = np.sqrt(2 * 3.0 * spread / times) + 7 * 3.0 / (3 * times)
    np.testing.assert_allclose(reward_width(counts, 3.0), width, rtol=1e-4)
    row = np.where(visits[..., None] > 0, following / times[..., None], 1 / STATES)
    np.testing.assert_allclose(estimated_transition(counts), row, rtol=1e-6)


def test_counts_and_means_go_on_where_single_precision_stands_still():
    """After ten million visits a float sum of 0.1 averages 0.109, and floats stop at 2^24."""
    data = Episodes(jnp.zeros(3, jnp.int32), jnp.zeros(2, jnp.int32), jnp.full(2, 0.1))
    before = 2**25
    seen = jnp.zeros(SIZES, jnp.int32).at[:, 0, 0].set(before)
    following = jnp.zeros((*SIZES, STATES), jnp.int32).at[:, 0, 0, 0].set(before)
    total = jnp.zeros((*SIZES, 2)).at[:, 0, 0].set(jnp.asarray([0.1, 0.01]) * before)
    counts = Counts(seen, following, CompensatedSum(total, jnp.zeros_like(total)))
    more = 2000

    @jax.jit
    def play(counts):
        return jax.lax.fori_loop(0, more, lambda _, c: count(c, data, PROBLEM), counts)

    found = play(counts)
    assert int(found.visits[0, 0, 0]) == int(found.following[1, 0, 0, 0]) == before + more
    added = float(found.reward.total[0, 0, 0, 0]) - float(total[0, 0, 0, 0])
    # A unit in the last place is 0.25 here: by itself 0.1 would be nothing, 2,000 times.
    np.testing.assert_allclose(added, 0.1 * more, atol=0.25)


@pytest.mark.parametrize("low, high", [(0.0, 10.0), (-5.0, 5.0)])
def test_rewards_of_another_range_are_rescaled(low, high):
    """Estimates are those of rewards in [0, 1]; means come in the units of the rewards."""
    data = some_episodes()
    scaled = Episodes(data.state, data.action, low + (high - low) * data.reward)
    problem = dataclasses.replace(PROBLEM, reward_range=jnp.asarray([low, high]))
    plain = count(no_counts(PROBLEM), data, PROBLEM)
    found = count(no_counts(problem), scaled, problem)
    np.testing.assert_allclose(found.reward.total, plain.reward.total, rtol=1e-4, atol=1e-4)
    wanted = low + (high - low) * np.asarray(estimated_unit_reward(plain, PROBLEM))
    np.testing.assert_allclose(mean_reward(found, problem), wanted, rtol=1e-4, atol=1e-4)


def test_the_variance_survives_large_values():
    """In single precision a difference of squares of 10,000 would be wrong by several units."""
    following = jnp.asarray([[[3.0, 1.0]], [[0.0, 0.0]]])
    value = jnp.asarray([10_000.0, 10_001.0])
    mean, variance = expected_next(following, jnp.sum(following, axis=-1), value)
    np.testing.assert_allclose(mean, [[10_000.25], [0.0]], rtol=1e-7)
    np.testing.assert_allclose(variance, [[0.1875], [0.0]], rtol=1e-5)


def test_caps():
    np.testing.assert_array_equal(highest_values(PROBLEM, "horizon"), np.full(SIZES, 2.0))
    remaining = highest_values(PROBLEM, "remaining")
    np.testing.assert_array_equal(remaining[:, 0, 0], [2.0, 1.0])


def worst(row, value, radius):
    """Moves probability, state by state, from the best to the worst one."""
    row, left = row.copy(), radius
    lowest = value.argmin()
    for state in np.argsort(-value):
        moved = min(left, row[state])
        row[state] -= moved
        row[lowest] += moved
        left -= moved
    return row @ value


def gap_by_hand(following, rewards, policy, known, failure):
    upper, lower = np.zeros(STATES), np.zeros(STATES)
    for h in reversed(range(HORIZON)):
        best, least = np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS))
        for s in range(STATES):
            for a in range(ACTIONS):
                seen = rewards[np.ravel_multi_index((h, s, a), SIZES)]
                n = len(seen)
                log = np.log(np.prod(SIZES) * max(n, 1) ** 2 * 5 / failure)
                radius = min(np.sqrt(2 * (STATES * np.log(2) + log) / max(n, 1)) / 2, 1.0)
                row, low, high = np.full(STATES, 1 / STATES), 0.0, 1.0
                if n:
                    row = following[h, s, a] / n
                    width = np.sqrt(log / (2 * n))
                    low = max(np.mean(seen) - width, 0.0)
                    high = min(np.mean(seen) + width, 1.0)
                else:
                    radius = 1.0
                if known is not None:
                    low = high = known[h, s, a]
                best[s, a] = high - worst(row, -upper, radius)
                least[s, a] = low + worst(row, lower, radius)
        upper, lower = best.max(-1), (policy[h] * least).sum(-1)
    return np.asarray(PROBLEM.initial) @ (upper - lower)


@pytest.mark.parametrize("known", [False, True])
def test_the_certified_gap_is_what_its_description_says(known):
    data = some_episodes()
    random = np.random.default_rng(3)
    reward = random.random(SIZES).astype(np.float32) if known else None
    problem = FiniteProblem(
        STATES, ACTIONS, HORIZON, PROBLEM.initial, None if reward is None else jnp.asarray(reward)
    )
    policy = random.dirichlet(np.ones(ACTIONS), SIZES[:2]).astype(np.float32)
    found = certified_gap(
        count(no_counts(problem), data, problem), jnp.asarray(policy), problem, 0.1
    )
    expected = gap_by_hand(*loop(data), policy, reward, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 0.2 < expected < HORIZON - 0.2


def test_a_bound_needs_the_first_states():
    problem = FiniteProblem(STATES, ACTIONS, HORIZON)
    counts: Counts = no_counts(problem)
    policy = jnp.full(SIZES, 1.0 / ACTIONS)
    with pytest.raises(SpecificationError, match="where episodes start: give `initial`"):
        jax.eval_shape(lambda: certified_gap(counts, policy, problem, 0.1))
