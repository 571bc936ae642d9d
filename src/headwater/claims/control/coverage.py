"""TQ and SACo: what quality and coverage of a log say about the method to learn from it with."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.analysis.coverage import saco
from headwater.core.catalogue import build_method
from headwater.core.method import AbstractMethod
from headwater.datasets.dataset import Dataset
from headwater.environments.control.cart_pole import CartPole
from headwater.environments.interaction import begin, interact, random_action
from headwater.evaluation.returns import evaluate_returns
from headwater.evaluation.statistics import rank_correlation
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.logs import dataset_of
from headwater.runs.loop import run
from headwater.runs.recipes.online import Budget, online_stage
from headwater.runs.stage import Stage
from headwater.sources.replay import Replay

_TASK = CartPole()
_LOGS = ("random", "mixed", "replay", "noisy", "expert")
_LEARNERS: dict[str, dict[str, Any]] = {
    "BC": {},
    "DQN": {"discount": 0.95},
    "DiscreteCQL": {"discount": 0.95, "conservative_weight": 0.1},
}
"""Cloning, off-policy learning without and with a constraint; settings are the paper's."""


@eqx.filter_jit
def _recorded(method, state, exploration, copies, steps, key):
    """What the greedy policy of `state` does, but for a share of random actions."""

    def act(observation, key):
        coin, draw, choice = jax.random.split(key, 3)
        greedy, _ = method.act(state, observation, key=choice, explore=False)
        chance = random_action(_TASK.spaces, key=draw)
        return jnp.where(jax.random.uniform(coin) < exploration, chance, greedy)

    start_key, walk_key = jax.random.split(key)
    at = begin(_TASK, copies, key=start_key)
    rows = interact(_TASK, at, act, steps=steps, key=walk_key)[1]
    return jax.tree.map(lambda x: x.swapaxes(0, 1), rows)


@eqx.filter_jit
def _behaved(method, states, copies, steps, key):
    """What the policies of one run did, exploring, one after the other: its replay."""
    keys = jax.random.split(key, jax.tree.leaves(states)[0].shape[0])

    def one(state, key):
        start_key, walk_key = jax.random.split(key)
        act = lambda observation, k: method.act(state, observation, key=k, explore=True)[0]
        at = begin(_TASK, copies, key=start_key)
        return interact(_TASK, at, act, steps=steps, key=walk_key)[1]

    rows = jax.lax.map(lambda each: one(*each), (states, keys))
    # [policy, step, copy] to [piece, step].
    return jax.tree.map(lambda x: x.swapaxes(1, 2).reshape(-1, x.shape[1], *x.shape[3:]), rows)


def _logs(seed: int, size: int, online_steps: int, width: int) -> tuple[dict[str, Dataset], float]:
    """The five logs of `size` transitions from one online run, and its best return."""
    behaviour = build_method("DQN", {"hidden_sizes": (width, width), "learning_rate": 1e-3})
    stages: list[AbstractMethod] = []
    returns: list[float] = []

    def evaluate(method, state, key):
        stages.append(jax.tree.map(lambda leaf: jnp.array(leaf[0]), state))
        found = evaluate_returns(method, state, _TASK, episodes=20, key=key)
        returns.append(float(found.mean()))
        return found

    budget = Budget(online_steps, 32, random_steps=200, block=4, updates_per_step=1)
    stage = online_stage(behaviour, _TASK, budget)
    run([stage], _TASK.spaces, seeds=[seed], seed=seed, evaluate=evaluate, evaluations=10)
    best = stages[int(np.argmax(returns))]
    copies, key = 20, jax.random.key(seed)
    walk = lambda i, share, rows: _recorded(
        behaviour, best, jnp.asarray(share), copies, rows // copies, jax.random.fold_in(key, i)
    )
    every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stages)
    pieces = copies * len(stages)
    replay = _behaved(behaviour, every, copies, size // pieces, jax.random.fold_in(key, 9))
    both = [walk(0, 1.0, 4 * size // 5), walk(1, 0.0, size // 5)]
    return {
        "random": dataset_of(_TASK, walk(2, 1.0, size), "random"),
        "mixed": Dataset.concatenate([dataset_of(_TASK, rows, "mixed") for rows in both]),
        "replay": dataset_of(_TASK, replay, "replay"),
        "noisy": dataset_of(_TASK, walk(3, 0.2, size), "noisy"),
        "expert": dataset_of(_TASK, walk(4, 0.0, size), "expert"),
    }, max(returns)


def _table(
    seed: int, *, runs: int, size: int, online_steps: int, updates: int, width: int
) -> dict[str, np.ndarray]:
    """TQ and SACo `[run, log]` and each learner's share of the best online return."""
    random = float(CartPole.reference_returns[0])
    names = ("TQ", "SACo", *_LEARNERS)
    found = {name: np.zeros((runs, len(_LOGS))) for name in names}
    for i in range(runs):
        number = 1_000 * seed + i
        logs, best = _logs(number, size, online_steps, width)
        for j, name in enumerate(_LOGS):
            log = logs[name]
            found["TQ"][i, j] = (log.episode_returns().mean() - random) / (best - random)
            found["SACo"][i, j] = saco(log, logs["replay"])
            source = Replay(jax.tree.map(jnp.asarray, log.transitions()), 128)
            for learner, fields in _LEARNERS.items():
                given = {"hidden_sizes": (width, width), "learning_rate": 1e-3, **fields}
                stage = Stage("offline", build_method(learner, given), source, updates)
                # Of the task, not of the log: the statistics differ, and so would the program.
                result = run([stage], log.spaces, seeds=[number], seed=number)
                state = result.outcomes["offline"].state
                returns = evaluate_returns(
                    stage.method, state, _TASK, episodes=30, key=jax.random.key(number)
                )
                found[learner][i, j] = (returns.mean() - random) / (best - random)
    return found


def _quality(seed: int, **scale: int) -> Finding:
    table = _table(seed, **scale)
    replay, narrow = _LOGS.index("replay"), [_LOGS.index("noisy"), _LOGS.index("expert")]
    cloned = [rank_correlation(q, s) for q, s in zip(table["TQ"], table["BC"])]
    dqn = table["DQN"]
    covered = dqn[:, replay] - dqn[:, narrow].mean(1)
    constrained = table["DiscreteCQL"] - np.maximum(table["BC"], table["DQN"])
    close = (constrained >= -0.15).sum(1)
    # What the two numbers foretell of the difference between cloning and off-policy learning.
    predicted = [
        rank_correlation(q - c, b - d)
        for q, c, b, d in zip(table["TQ"], table["SACo"], table["BC"], dqn)
    ]
    order = np.argsort(table["TQ"].mean(0))
    return Finding(
        (
            Criterion("rank correlation of TQ and the score of cloning", mean_of(cloned), 0.8),
            Criterion(
                "score of DQN on the replay, less that on narrow logs", mean_of(covered), 0.0
            ),
            Criterion("logs of five where CQL is within 0.15 of the better", mean_of(close), 4.0),
            Criterion(
                "rank correlation of TQ less SACo and of what cloning gains over DQN",
                mean_of(predicted),
                0.5,
            ),
        ),
        {name: dict(zip(_LOGS, x.mean(0).round(3).tolist())) for name, x in table.items()},
        {n: (table["TQ"].mean(0)[order], table[n][:, order]) for n in _LEARNERS},
        across="trajectory quality (TQ) of the five logs, mean over runs",
        up="share of the best online return",
    )


CLAIMS = (
    Claim(
        "quality-and-coverage-tell-the-method",
        "Over random, mixed, replay, noisy and expert logs of CartPole, the score of cloning goes "
        "with their quality TQ (rank correlation of at least 0.8); DQN without a constraint does "
        "better on the replay than on narrow logs of low coverage SACo; CQL is within 0.15 of the "
        "better of both on four of the five; and TQ less SACo orders the logs by what cloning gains"
        " over DQN (rank correlation of at least 0.5).",
        ("BC", "DQN", "DiscreteCQL"),
        "schweighofer2022dataset",
        "the abstract; the correlations and margins are ours",
        {
            "smoke": {"runs": 1, "size": 400, "online_steps": 240, "updates": 20, "width": 8},
            "small": {
                "runs": 4,
                "size": 10_000,
                "online_steps": 12_000,
                "updates": 4_000,
                "width": 32,
            },
        },
        _quality,
        learned=(
            "TQ is a mean over episodes, and barely tells the mixed log from the random one (0.01 "
            "and -0.01), since most of its episodes are random and short; but cloning it gets 0.93 "
            "of the best online return. The rank correlation of TQ and cloning is 0.775. DQN gets "
            "most from random and mixed logs (0.78 and 0.92), 0.26 from the replay and nothing "
            "from narrow ones; over four runs the difference is undecided. CQL was within 0.15 of "
            "the better on two logs of five, not four: with the paper's weight, which was not "
            "tuned here, its score varies much from run to run, and why is not known. TQ less SACo "
            "orders the logs as stated (0.875)."
        ),
    ),
)
