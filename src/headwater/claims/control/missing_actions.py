"""SS-ORL: what inferred actions are worth where nine episodes in ten were logged without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.spaces import Box, Spaces
from headwater.datasets.dataset import Dataset, with_statistics
from headwater.datasets.transform import label_actions
from headwater.environments.control.pendulum import Pendulum, swing_up_action
from headwater.environments.interaction import random_action
from headwater.evaluation.returns import evaluate_returns
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.evidence.logs import normalised, record
from headwater.methods.control.imitation.inverse_dynamics import TOLERANCE, InverseDynamics
from headwater.methods.control.offline.td3_bc import TD3BC
from headwater.runs.feeds.logged import windows_of
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.replay import Replay

_TASK = Pendulum()
_LABELLED = 0.1
"""The share of the episodes that have actions, all from the worse half."""


def _act(skill, observation, key):
    coin, draw = jax.random.split(key)
    flail = random_action(_TASK.spaces, key=draw)
    return jnp.where(jax.random.uniform(coin) < skill, swing_up_action(observation), flail)


def _without_actions(log: Dataset, seed: int) -> Dataset:
    """The log in which only some of the worse half of the episodes keep their actions."""
    worse = np.argsort(log.episode_returns(), kind="stable")[: log.episodes // 2]
    count = max(1, int(_LABELLED * log.episodes))
    chosen = np.random.default_rng(seed).permutation(worse)[:count]
    known = np.isin(log.episode_of_row, chosen)
    return dataclasses.replace(
        log,
        actions=np.where(known[:, None], log.actions, np.float32(0.0)),
        action_confidence=known.astype(np.float32),
    )


def _without_velocity(log: Dataset) -> Dataset:
    seen = Spaces(Box((-1.0, -1.0), (1.0, 1.0)), log.spaces.action, log.spaces.horizon)
    return with_statistics(
        dataclasses.replace(
            log,
            observations=np.ascontiguousarray(log.observations[:, :2]),
            next_observations=np.ascontiguousarray(log.next_observations[:, :2]),
            spaces=seen,
        )
    )


def _labels(
    logs: list[Dataset], history: int, seed: int, updates: int, width: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels of all rows of each log, and the confidence in them."""
    method = InverseDynamics(history=history, learning_rate=1e-3, hidden_sizes=(width, width))
    sources = [
        windows_of(log, np.flatnonzero(log.known_actions), history, batch_size=256) for log in logs
    ]
    stage, seeds = Stage("label", method, sources, updates), list(range(len(logs)))
    learned = run([stage], [log.spaces for log in logs], seeds=seeds, seed=seed)
    label = jax.jit(lambda state, source: method.label(state, source.windows(rows)))
    rows, found = jnp.arange(logs[0].size), []
    for number, source in enumerate(sources):
        state = jax.tree.map(lambda x, n=number: x[n], learned.outcomes["label"].state)
        labels, confidence = label(state, source)
        found.append((np.asarray(labels), np.asarray(confidence)))
    return found


def _errors(logs: list[Dataset], lacking: list[Dataset], labels) -> np.ndarray:
    """The absolute error of each label of a row without action, `[log, row]`."""
    return np.stack(
        [
            np.abs(found[0] - log.actions)[~less.known_actions, 0]
            for log, less, found in zip(logs, lacking, labels)
        ]
    )


def _scores(logs: list[Dataset], seed: int, updates: int, width: int, batch: int) -> np.ndarray:
    """The normalised score of TD3+BC on each log."""
    method = TD3BC(hidden_sizes=(width, width), learning_rate=1e-3)
    sources = [Replay(jax.tree.map(jnp.asarray, log.transitions()), batch) for log in logs]
    stage, seeds = Stage("offline", method, sources, updates), list(range(len(logs)))
    learned = run([stage], [log.spaces for log in logs], seeds=seeds, seed=seed)
    states = learned.outcomes["offline"].state
    returns = evaluate_returns(method, states, _TASK, episodes=30, key=jax.random.key(seed))
    return normalised(_TASK, returns).mean(1)


def _missing_actions(
    seed: int,
    *,
    logs: int,
    episodes: int,
    updates: int,
    label_updates: int,
    width: int = 64,
    label_width: int = 128,
    batch: int = 128,
) -> Finding:
    whole = [
        record(
            _TASK,
            _act,
            np.linspace(0.0, 1.0, episodes),
            steps=200,
            key=jax.random.key(1_000 * seed + i),
        )
        for i in range(logs)
    ]
    lacking = [_without_actions(log, seed) for log in whole]
    labels = _labels(lacking, 1, seed, label_updates, label_width)
    errors = _errors(whole, lacking, labels)
    sure = np.stack([c[~log.known_actions] for log, (_, c) in zip(lacking, labels)])
    inferred = [
        label_actions(log, *found, by="InverseDynamics") for log, found in zip(lacking, labels)
    ]
    scores = {
        name: _scores(chosen, seed, updates, width, batch)
        for name, chosen in (
            ("all logged", whole),
            ("nine tenths inferred", inferred),
            ("the logged tenth alone", [log.select_rows(log.known_actions) for log in lacking]),
        )
    }
    blind = [_without_velocity(log) for log in lacking]
    hidden = {
        history: _errors(
            whole, lacking, _labels(blind, history, seed, label_updates, label_width)
        ).mean(1)
        for history in (0, 1)
    }
    gap = np.abs(sure.mean(1) - np.mean(errors <= TOLERANCE, axis=1))
    return Finding(
        (
            Criterion("mean absolute error of labels", mean_of(errors.mean(1)), at_most=0.05),
            Criterion(
                "score with inferred actions over that with all logged",
                ratio_of_means(scores["nine tenths inferred"], scores["all logged"]),
                at_least=0.9,
            ),
            Criterion(
                "score with inferred actions less that of the logged tenth alone, points",
                mean_of(scores["nine tenths inferred"] - scores["the logged tenth alone"]),
                at_least=20.0,
            ),
            Criterion(
                "velocity hidden: error with an observation before over that without",
                ratio_of_means(hidden[1], hidden[0]),
                at_most=0.5,
            ),
            Criterion(
                "mean confidence against the share of labels within 0.1", mean_of(gap), at_most=0.1
            ),
        ),
        {
            "scores": {name: mean_of(found) for name, found in scores.items()},
            "errors with the velocity hidden": {
                f"history {history}": mean_of(found) for history, found in hidden.items()
            },
            "quantiles of the error (0.5, 0.9, 0.99)": np.quantile(
                errors, (0.5, 0.9, 0.99)
            ).tolist(),
        },
    )


CLAIMS = (
    Claim(
        "inferred-actions-nearly-replace-logged-ones",
        "On logs of a pendulum in which a tenth of the episodes have actions, all from the worse "
        "half, inverse dynamics labels the rest with a mean absolute error of at most 0.05 (of "
        "[-1, 1]); TD3+BC then reaches nine tenths of the score that it has with all actions "
        "logged, and at least 20 points more than with the labelled tenth alone. Where the "
        "velocity is hidden, one more observation at least halves the error. Confidence is right "
        "within 0.1. Nothing is tuned here: settings were chosen on logs of another seed.",
        ("InverseDynamics", "TD3BC"),
        "zheng2023semi",
        "its main experiment, on a pendulum instead of D4RL; the hidden velocity is a consequence",
        {
            "smoke": {
                "logs": 2,
                "episodes": 20,
                # Enough that the score is positive, of which a ratio needs.
                "updates": 500,
                "label_updates": 20,
                "width": 16,
                "label_width": 8,
                "batch": 64,
            },
            "small": {"logs": 5, "episodes": 100, "updates": 6_000, "label_updates": 6_000},
        },
        _missing_actions,
        learned="Whether the labelled tenth alone falls 20 points short depends on the logs: their "
        "worse half is nearly random, from which TD3+BC learns to swing up on some of them. Runs "
        "on a GPU differ: over all logged actions seed 0 came to 1.01 and then to 0.99, with an "
        "interval from 0.89, which leaves it undecided.",
    ),
)
