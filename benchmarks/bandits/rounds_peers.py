"""Rounds of other libraries, in an environment of their own: prints one line of JSON.

python rounds_peers.py LIBRARY ROUNDS
"""

import json
import sys
from importlib.metadata import version

import numpy as np
from rounds_work import ARMS, Rounds, rounds_asked, timed


def mabwiser():
    """LinUCB, a round at a time, and all rounds at once."""
    from mabwiser.mab import MAB, LearningPolicy

    def begun():
        return MAB(list(range(ARMS)), LearningPolicy.LinUCB(alpha=1.0, l2_lambda=1.0))

    def online(rounds):
        policy, arms = begun(), []
        policy.fit([0], [0.0], [rounds.contexts[0]])
        for number, context in enumerate(rounds.contexts):
            arm = policy.predict([context])
            policy.partial_fit([arm], [rounds.reward(number, arm)], [context])
            arms.append(arm)
        return arms

    def logged(rounds):
        arms = rounds.logged_arms()
        rewards = [rounds.reward(number, arm) for number, arm in enumerate(arms)]
        policy = begun()
        policy.fit(arms, rewards, rounds.contexts)
        return policy.predict(rounds.contexts)

    return online, logged


def river():
    """LinUCB, a round at a time."""
    from river.bandit import LinUCBDisjoint

    def named(context):
        return {str(place): float(number) for place, number in enumerate(context)}

    def online(rounds):
        policy, every, arms = LinUCBDisjoint(seed=0), list(range(ARMS)), []
        for number, context in enumerate(map(named, rounds.contexts)):
            arm = policy.pull(every, context=context)
            policy.update(arm, context, rounds.reward(number, arm))
            arms.append(arm)
        return arms

    def logged(rounds):
        policy = LinUCBDisjoint(seed=0)
        contexts = list(map(named, rounds.contexts))
        for number, arm in enumerate(rounds.logged_arms()):
            policy.update(int(arm), contexts[number], rounds.reward(number, arm))
        return [policy.pull(list(range(ARMS)), context=c) for c in contexts]

    return online, logged


def vowpalwabbit():
    """Regression of costs by gradient steps, with a tenth of exploration, from lines of text."""
    from vowpalwabbit import Workspace

    def begun():
        return Workspace(f"--cb_explore {ARMS} --epsilon 0.1 --quiet")

    def line(context):
        return "| " + " ".join(f"{place}:{number:.6g}" for place, number in enumerate(context))

    def online(rounds):
        workspace, draw, arms = begun(), np.random.default_rng(1), []
        for number, context in enumerate(rounds.contexts):
            text = line(context)
            chances = np.cumsum(workspace.predict(text))
            arm = min(int(np.searchsorted(chances, draw.random() * chances[-1])), ARMS - 1)
            chance = chances[arm] - (chances[arm - 1] if arm else 0.0)
            workspace.learn(f"{arm + 1}:{-rounds.reward(number, arm):g}:{chance:.6g} {text}")
            arms.append(arm)
        workspace.finish()
        return arms

    def logged(rounds):
        workspace, texts = begun(), list(map(line, rounds.contexts))
        for number, arm in enumerate(rounds.logged_arms()):
            workspace.learn(
                f"{arm + 1}:{-rounds.reward(number, arm):g}:{1 / ARMS:.6g} {texts[number]}"
            )
        arms = [int(np.argmax(workspace.predict(text))) for text in texts]
        workspace.finish()
        return arms

    return online, logged


name, rounds = sys.argv[1], Rounds(rounds_asked())
online, logged = {"mabwiser": mabwiser, "river": river, "vowpalwabbit": vowpalwabbit}[name]()
found = {"online": timed(online, rounds), "from a log": timed(logged, rounds)}
print(json.dumps({"version": version(name), "paces": found}))
