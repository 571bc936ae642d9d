"""PRDC: what it is worth to be held to the nearest logged pair instead of the logged action."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.catalogue import build_method
from headwater.core.method import AbstractMethod, AbstractPolicy, AbstractValue
from headwater.datasets.dataset import Dataset
from headwater.environments.control.pendulum import Pendulum, swing_up_action
from headwater.environments.interaction import random_action
from headwater.evaluation.returns import evaluate_returns
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.logs import normalised, record
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.replay import Replay
from headwater.sources.whole_log import WithWholeLog

_TASK = Pendulum()
_KINDS = ("medium", "expert", "mixture")


def _skills(kind: str, episodes: int) -> np.ndarray:
    """How often the expert acts in each episode; else chance does."""
    if kind == "mixture":
        return (np.arange(episodes) < max(1, episodes // 10)).astype(np.float64)
    return np.full(episodes, {"medium": 0.5, "expert": 1.0}[kind])


def _act(skill, observation, key):
    coin, draw = jax.random.split(key)
    uniform_action = random_action(_TASK.spaces, key=draw)
    return jnp.where(jax.random.uniform(coin) < skill, swing_up_action(observation), uniform_action)


def _learned(name: str, logs: list[Dataset], seed: int, width: int, updates: int, batch: int):
    """The method of this name, and its states after learning from each log."""
    method = build_method(name, {"hidden_sizes": (width, width), "learning_rate": 1e-3})
    rows = [Replay(jax.tree.map(jnp.asarray, log.transitions()), batch) for log in logs]
    sources = [WithWholeLog(replay) for replay in rows] if name == "PRDC" else rows
    stage = Stage("offline", method, sources, updates)
    spaces, seeds = [log.spaces for log in logs], list(range(len(logs)))
    return method, run([stage], spaces, seeds=seeds, seed=seed).outcomes["offline"].state


def _promised(method: AbstractMethod, states, logs: list[Dataset]) -> np.ndarray:
    """The mean value of the policy's action where episodes of each log begin, `[log]`."""
    assert isinstance(method, AbstractPolicy) and isinstance(method, AbstractValue)
    key = jax.random.key(0)

    @jax.jit
    @jax.vmap
    def promised(state, starts):
        def one(observation):
            action = method.act(state, observation, key=key, explore=False)[0]
            return method.value(state, observation, action)

        return jnp.mean(jax.vmap(one)(starts))

    starts = [log.observations[log.episode_starts[:-1]] for log in logs]
    return np.asarray(promised(states, jnp.stack(starts)))


def _nearest_pairs(
    seed: int, *, logs: int, episodes: int, updates: int, width: int = 64, batch: int = 128
) -> Finding:
    made = [
        record(
            _TASK, _act, _skills(kind, episodes), steps=200, key=jax.random.key(1_000 * seed + i)
        )
        for kind in _KINDS
        for i in range(logs)
    ]
    scores, promised = {}, np.zeros(len(made))
    for name in ("TD3BC", "PRDC"):
        method, states = _learned(name, made, seed, width, updates, batch)
        returns = evaluate_returns(method, states, _TASK, episodes=30, key=jax.random.key(seed))
        scores[name] = normalised(_TASK, returns).mean(1).reshape(len(_KINDS), logs)
        promised = _promised(method, states, made)
    gain = dict(zip(_KINDS, scores["PRDC"] - scores["TD3BC"]))
    best = np.asarray([log.episode_returns(0.99).max() for log in made])
    excess = (promised - best) / np.abs(best)
    return Finding(
        (
            *(
                Criterion(f"PRDC less TD3+BC on {kind} logs, points", mean_of(gain[kind]), bound)
                for kind, bound in zip(_KINDS, (-3.0, -3.0, 10.0))
            ),
            Criterion(
                "mean value at the start over the best logged return, as a share of its size",
                mean_of(excess),
                at_most=0.2,
            ),
        ),
        {
            "scores": {
                name: {kind: mean_of(x) for kind, x in zip(_KINDS, table)}
                for name, table in scores.items()
            },
        },
    )


CLAIMS = (
    Claim(
        "prdc-gains-where-a-tenth-is-an-experts",
        "On logs of a pendulum PRDC is at most 3 points of normalised score below TD3+BC where all "
        "episodes are half an expert's or an expert's, and at least 10 above it where one episode "
        "in ten is an expert's and the others are random; its values at the start are at most a "
        "fifth above the best logged return. Neither is tuned: both take the paper's α of 2.5, and "
        "PRDC its β of 2.",
        ("PRDC", "TD3BC"),
        "ran2023policy",
        "a consequence of its tables, where PRDC gains most where logs are of mixed quality",
        {
            "smoke": {"logs": 2, "episodes": 10, "updates": 40, "width": 8, "batch": 16},
            "small": {"logs": 3, "episodes": 100, "updates": 6_000},
        },
        _nearest_pairs,
        learned=(
            "Fails with seed 0 on medium logs (33 points less, 5 to 47), and holds on the "
            "others: the nearest pair to an action is an expert's or a random one alike where "
            "each step is half an expert's. The last number is far below its bound because the "
            "best logged return may be nearly 0, by which it is divided."
        ),
    ),
)
