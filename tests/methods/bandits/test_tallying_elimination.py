"""Elimination in blocks against a plain loop in float64."""

import jax
import numpy as np
import pytest

from headwater.environments.bandits.tallying import TallyingBandit
from headwater.methods.bandits.tallying_elimination import TallyingElimination
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls


def plain(pulled, rewards, arms, memory, rounds, delta):
    """Which arm is next in every round, given what the pulls before it earned."""
    active, sums, counts, expected = list(range(arms)), np.zeros(arms), np.zeros(arms), []
    epoch, at = 0, 0
    while at < len(pulled):
        for arm in active:
            judged = max(memory, 1) * 2**epoch
            block = rewards[at : at + memory + judged]
            expected += [arm] * len(block)
            sums[arm] += block[memory:].sum()
            counts[arm] += len(block[memory:])
            at += memory + judged
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums / counts
            radius = np.sqrt(np.log(4 * arms * rounds / delta) / (2 * counts))
        best = max(mean[a] - radius[a] for a in active)
        active = [a for a in active if mean[a] + radius[a] >= best]
        epoch += 1
    return expected[: len(pulled)], active


@pytest.mark.parity
def test_blocks_and_bounds_are_those_of_a_plain_loop():
    bandit = TallyingBandit(arms=4, memory=5)
    method = TallyingElimination(memory=5, num_rounds=3_000)

    def measure(agent, data):
        return {"arm": data.arm[0], "reward": data.reward[0], "one": data.propensity[0]}

    learned = jax.jit(
        lambda key: learn(
            method, bandit.problem, LivePulls(bandit), 3_000, measure=measure, every=1, key=key
        )
    )(jax.random.key(0))
    pulled = np.asarray(learned.sums["arm"])
    rewards = np.asarray(learned.sums["reward"], np.float64)
    expected, active = plain(pulled, rewards, 4, 5, 3_000, 0.1)
    np.testing.assert_array_equal(pulled, expected)
    assert 0 in active and len(active) < 4
    assert np.all(np.asarray(learned.sums["one"]) == 1.0)


@pytest.mark.oracle
def test_a_repeated_arm_is_worth_what_it_says():
    """The bandit itself: after as many pulls as it remembers, exposure is whole."""
    bandit = TallyingBandit(arms=3, memory=4)
    state = bandit.reset()
    step = jax.jit(lambda s, a: bandit.step(s, a, key=jax.random.key(0)))
    found = []
    for _ in range(6):
        found.append(float(bandit.mean_reward(state, None, None)[0]))
        state = step(state, 0)
    np.testing.assert_allclose(found, [0.3, 0.5, 0.7, 0.9, 0.9, 0.9], rtol=1e-6)
