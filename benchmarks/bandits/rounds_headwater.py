"""Rounds of Headwater in a process of its own: prints one line of JSON.

    python rounds_headwater.py CASE ROUNDS [ARMS]

CASE is `python` (the rounds that the other libraries play, an `ArmPolicy` of LinUCB) or `compiled`
(a bandit in JAX of the same kind, of as many arms).
"""

import json
import sys

import equinox as eqx
import jax
import numpy as np
from rounds_work import ARMS, CONTEXT, Rounds, rounds_asked, timed

import headwater as hw
from headwater.environments.bandits.contextual import FeatureBandit, LinearBandit
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls


def online(rounds):
    policy, arms = hw.ArmPolicy(hw.LinUCB(), hw.Arms(ARMS, CONTEXT)), []
    for number, context in enumerate(rounds.contexts):
        arm, propensity = policy.pull(context)
        policy.partial_fit(context, arm, rounds.reward(number, arm), propensity)
        arms.append(arm)
    return arms


def logged(rounds):
    arms = rounds.logged_arms()
    rewards = np.asarray([rounds.reward(number, arm) for number, arm in enumerate(arms)])
    policy = hw.ArmPolicy(hw.LinUCB(), hw.Arms(ARMS, CONTEXT))
    policy.partial_fit(rounds.contexts, arms, rewards, np.full(len(arms), 1.0 / ARMS))
    return policy.predict(rounds.contexts)


class Simulated:
    """Rounds of a bandit in JAX, so long as their number and their regret are asked for."""

    def __init__(self, rounds: int, arms: int):
        # With many arms these share their weights, which are learned from few rounds then.
        bandit = LinearBandit(arms, CONTEXT) if arms <= 100 else FeatureBandit(arms, CONTEXT)
        self._rounds, method, source = rounds, hw.LinUCB(), LivePulls(bandit)

        @eqx.filter_jit
        def play(key):
            found = learn(
                *(method, bandit.problem, source, rounds),
                measure=lambda agent, data: {"regret": data.regret[0]},
                every=rounds // 2,
                key=key,
            )
            return found.means["regret"][-1]

        self._play = play

    def __len__(self) -> int:
        return self._rounds

    def play(self, _):
        self.last = float(self._play(jax.random.key(0)))
        return []

    def regret(self, _) -> float:
        return self.last


case, rounds = sys.argv[1], rounds_asked()
if case == "python":
    played = Rounds(rounds)
    paces = {"online": timed(online, played), "from a log": timed(logged, played)}
else:
    simulated = Simulated(rounds, int(sys.argv[3]))
    paces = {"compiled": timed(simulated.play, simulated)}
print(json.dumps({"version": hw.__version__, "paces": paces}))
