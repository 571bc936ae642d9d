"""OPPO and rewards learned from preferences, on comparisons of segments of a pendulum's log."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod
from headwater.core.records import Segments
from headwater.datasets.dataset import Dataset
from headwater.datasets.segments.judges import judge_segments, random_pairs
from headwater.datasets.transform import infer_rewards, top_episodes
from headwater.environments.control.pendulum import Pendulum, swing_up_action
from headwater.environments.interaction import random_action
from headwater.evaluation.returns import evaluate_returns
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.logs import normalised, record
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.preferences.oppo import OPPO
from headwater.methods.control.preferences.preference_reward import PreferenceReward
from headwater.runs.feeds.logged import compared_and_logged, compared_segments_of
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.replay import Replay
from headwater.sources.segments.compared import ComparedSegments

_TASK = Pendulum()
_LENGTH, _BEYOND = 20, 80
"""Steps of a segment, and those after it that the judge looks at too."""
_WRONG = 0.1
"""Share of mistaken answers in the second set."""
_BATCH = 32


def _act(skill, observation, key):
    coin, draw = jax.random.split(key)
    flail = random_action(_TASK.spaces, key=draw)
    return jnp.where(jax.random.uniform(coin) < skill, swing_up_action(observation), flail)


def _learned(method: AbstractMethod, sources: list[Any], logs: list[Dataset], updates: int, seed):
    """The states that the method learns, one for each log."""
    stage, seeds = Stage("learn", method, sources, updates), list(range(len(logs)))
    learned = run([stage], [log.spaces for log in logs], seeds=seeds, seed=seed)
    return learned.outcomes["learn"].state


def _scores(method: AbstractMethod, states: Any, seed: int) -> np.ndarray:
    """The mean normalised score of each state."""
    returns = evaluate_returns(method, states, _TASK, episodes=30, key=jax.random.key(seed))
    return normalised(_TASK, returns).mean(1)


def _replays(logs: list[Dataset], size: int) -> list[Replay]:
    """Draws of the rows of logs; a smaller log is repeated, so that one program serves all."""
    rows = [log.transitions() for log in logs]
    return [
        Replay(jax.tree.map(lambda x: jnp.asarray(np.resize(x, (size, *x.shape[1:]))), found), 128)
        for found in rows
    ]


def _correlations(oppo: OPPO, states: Any, held_out: list[Dataset]) -> np.ndarray:
    """Of minus the distance from the context that is acted with and the sum of rewards."""
    distance = eqx.filter_jit(lambda state, segments: oppo.distance(state, segments))
    found = []
    for i, log in enumerate(held_out):
        begins = random_pairs(log, 500, _LENGTH)[0]
        rows = begins[:, None] + np.arange(_LENGTH)
        segments = Segments(jnp.asarray(log.observations[rows]), jnp.asarray(log.actions[rows]))
        state = jax.tree.map(lambda x, n=i: x[n], states)
        returns = log.rewards[rows].sum(1)
        found.append(np.corrcoef(-np.asarray(distance(state, segments)), returns)[0, 1])
    return np.asarray(found)


def _with_learned_rewards(
    logs: list[Dataset], sources: list[ComparedSegments], updates: int, width: int, seed: int
) -> list[Dataset]:
    """The logs with the rewards that are learned from the comparisons."""
    method = PreferenceReward(learning_rate=1e-3, hidden_sizes=(width, width))
    states = _learned(method, sources, logs, updates, seed)
    rewards = eqx.filter_jit(lambda state, *seen: method.rewards(state, *seen))
    filled = []
    for i, log in enumerate(logs):
        state = jax.tree.map(lambda x, n=i: x[n], states)
        found, apart = rewards(state, jnp.asarray(log.observations), jnp.asarray(log.actions))
        filled.append(
            infer_rewards(
                log,
                np.asarray(found),
                by="PreferenceReward",
                comparisons=None,
                deviation=float(np.mean(apart)),
            )
        )
    return filled


def _recorded(seed: int, count: int, episodes: int) -> list[Dataset]:
    """Logs of episodes from random to expert play."""
    return [
        record(
            _TASK,
            _act,
            np.linspace(0.0, 1.0, episodes),
            steps=200,
            key=jax.random.key(1_000 * seed + i),
        )
        for i in range(count)
    ]


def _compared(
    logs: list[Dataset], pairs: int, seed: int, judges: tuple[tuple[float, int], ...]
) -> list[ComparedSegments]:
    """For each judge the answers for each log.

    **Arguments:** `judges`: of each, the share of mistakes, and how far beyond segments it looks.
    """
    return [
        compared_segments_of(
            log,
            judge_segments(log, pairs, _LENGTH, beyond=beyond, errors=errors, seed=seed + i),
            _BATCH,
        )
        for errors, beyond in judges
        for i, log in enumerate(logs)
    ]


def _oppo(
    seed: int, *, logs: int, episodes: int, pairs: int, updates: int, width: int = 64
) -> Finding:
    whole = _recorded(seed, 2 * logs, episodes)
    learned_from, held_out = whole[:logs], whole[logs:]
    cloned_from = [*learned_from, *(top_episodes(log, 0.1) for log in learned_from)]
    clone = BC(learning_rate=1e-3, hidden_sizes=(width, width))
    replays = _replays(cloned_from, learned_from[0].size)
    cloned = _scores(clone, _learned(clone, replays, cloned_from, updates, seed), seed)
    oppo = OPPO(
        learning_rate=1e-3, context_learning_rate=3e-3, layers=1, hidden_sizes=(width, width)
    )
    twice = [*learned_from, *learned_from]
    judges = ((0.0, _BEYOND), (_WRONG, _BEYOND))
    sources = [
        compared_and_logged(log, found)
        for log, found in zip(twice, _compared(learned_from, pairs, seed, judges))
    ]
    states = _learned(oppo, sources, twice, updates, seed)
    scores = _scores(oppo, states, seed)
    correlations = _correlations(oppo, states, [*held_out, *held_out])
    # The first half of each is of answers without mistakes, or of whole logs.
    return Finding(
        (
            Criterion(
                "score of OPPO less that of BC, points",
                mean_of(scores[:logs] - cloned[:logs]),
                at_least=20.0,
            ),
            Criterion(
                "score of OPPO less that of BC of the best tenth, points",
                mean_of(scores[:logs] - cloned[logs:]),
                at_least=-15.0,
            ),
            Criterion(
                "correlation of nearness to the context and return of held-out segments",
                mean_of(correlations[:logs]),
                at_least=0.7,
            ),
        ),
        {
            "scores": {
                "BC": mean_of(cloned[:logs]),
                "BC of the best tenth": mean_of(cloned[logs:]),
                "OPPO": mean_of(scores[:logs]),
                "OPPO, a tenth of the answers wrong": mean_of(scores[logs:]),
            },
            "correlation with a tenth of the answers wrong": mean_of(correlations[logs:]),
        },
    )


def _learned_reward(
    seed: int,
    *,
    logs: int,
    episodes: int,
    pairs: int,
    updates: int,
    reward_updates: int,
    width: int = 64,
) -> Finding:
    whole = _recorded(seed, logs, episodes)
    size, judges = whole[0].size, ((0.0, 0), (_WRONG, 0), (0.0, _BEYOND))
    compared = _compared(whole, pairs, seed, judges)
    filled = _with_learned_rewards(whole * len(judges), compared, reward_updates, width, seed)
    learned_from = [*whole, *filled]
    iql = IQL(learning_rate=1e-3, hidden_sizes=(width, width))
    replays = _replays(learned_from, size)
    scores = _scores(iql, _learned(iql, replays, learned_from, updates, seed), seed)
    logged, learned, mistaken, beyond = np.split(scores, 4)
    return Finding(
        (
            Criterion(
                "score of IQL with the learned reward less that with the logged one, points",
                mean_of(learned - logged),
                at_least=-10.0,
            ),
        ),
        {
            "scores of IQL": {
                "logged reward": mean_of(logged),
                "learned reward": mean_of(learned),
                "learned reward, a tenth of the answers wrong": mean_of(mistaken),
                f"learned reward, judged {_BEYOND} steps beyond segments": mean_of(beyond),
            },
        },
    )


CLAIMS = (
    Claim(
        "preferred-segments-guide-a-policy",
        "On logs of a pendulum from random to expert play, in which a judge who looks 100 steps "
        "ahead compared 1,000 pairs of segments of 20 steps, OPPO scores at least 20 points more "
        "than cloning the log and at most 15 less than cloning its best tenth by true return (in "
        "the place of a decision transformer asked for the highest return). On other logs the "
        "nearness of a segment's context to the one that it acts with correlates by at least 0.7 "
        "with the segment's return. Scores with a tenth of the answers wrong are beside them.",
        ("OPPO", "BC"),
        "kang2023beyond",
        "its main experiment, on a pendulum instead of D4RL",
        {
            "smoke": {"logs": 2, "episodes": 6, "pairs": 20, "updates": 4, "width": 8},
            "small": {"logs": 3, "episodes": 60, "pairs": 1_000, "updates": 1_500},
        },
        _oppo,
    ),
    Claim(
        "a-reward-of-preferences-replaces-the-logged-one",
        "On the same logs, where a judge compared 1,000 pairs of segments by their rewards, IQL "
        "with a reward learned from the answers scores at most 10 points less than with the logged "
        "reward. Beside it are the scores with a tenth of the answers wrong, and with a judge who "
        "looks 80 steps beyond the segments.",
        ("PreferenceReward", "IQL"),
        "christiano2017deep",
        "its main experiment, from a log of a pendulum instead of while learning in Atari",
        {
            "smoke": {
                "logs": 2,
                "episodes": 6,
                "pairs": 20,
                "updates": 4,
                "reward_updates": 4,
                "width": 8,
            },
            "small": {
                "logs": 3,
                "episodes": 60,
                "pairs": 1_000,
                "updates": 1_500,
                "reward_updates": 1_000,
            },
        },
        _learned_reward,
        learned=(
            "Holds with seeds 0 and 2 and is undecided with seed 1: 44, -1 and 33 points more "
            "than with the logged reward. First the judge looked beyond "
            "the segments, as OPPO's does, and IQL lost 35 points (28 to 48) with seed 0: what a"
            " segment leads to is no reward of its steps, and counts again in their values. So "
            "who compares has to be asked about the segments alone."
        ),
    ),
)
