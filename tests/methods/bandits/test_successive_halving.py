"""Successive halving against a plain loop over phases."""

import jax
import numpy as np
import pytest

from headwater.environments.bandits.bernoulli import BernoulliBandit
from headwater.methods.bandits.successive_halving import SuccessiveHalving
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls


@pytest.mark.parity
def test_phases_are_those_of_a_plain_loop():
    arms, budget = 6, 90
    bandit = BernoulliBandit(arms=arms)

    def measure(agent, data):
        return {"arm": jax.nn.one_hot(data.arm[0], arms), "reward": data.reward[0]}

    learned = jax.jit(
        lambda key: learn(
            SuccessiveHalving(budget=budget), bandit.problem, LivePulls(bandit), 100,
            measure=measure, every=1, key=key,
        )
    )(jax.random.key(2))  # fmt: skip
    pulled = np.argmax(np.asarray(learned.sums["arm"]), axis=1)
    rewards = np.asarray(learned.sums["reward"], np.float64)
    left, at = list(range(arms)), 0
    while len(left) > 1:
        share = budget // (len(left) * 3)
        here = pulled[at : at + share * len(left)]
        for arm in left:
            assert np.sum(here == arm) == share
        mine = rewards[at : at + share * len(left)]
        means = {arm: mine[here == arm].mean() for arm in left}
        left = sorted(left, key=lambda arm: (-means[arm], arm))[: (len(left) + 1) // 2]
        at += share * len(here) // share
    assert set(pulled[at:]) == {left[0]}
