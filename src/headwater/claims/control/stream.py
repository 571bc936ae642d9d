"""Learning from each step once, with and without the bound on steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod
from headwater.environments.control.cart_pole import CartPole
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.environment import AbstractEnvironment
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.control.streaming.stream_ac import StreamAC
from headwater.methods.control.streaming.stream_q import StreamQ
from headwater.runs.learn import learn, seed_key
from headwater.sources.rollout import Stream


def _returns(
    method: AbstractMethod,
    environment: AbstractEnvironment,
    seed: int,
    *,
    steps: int,
    seeds: int,
    rows: int,
) -> np.ndarray:
    """Mean returns while learning, `[seed, row]`: all rewards over the episodes that ended.

    Where none ended in a row, it counts as one.
    """

    def seen(agent, data):
        over = data.terminal | data.truncated
        return {"reward": data.reward, "ended": over.astype(jnp.float32)}

    def run(key):
        source = Stream(environment)
        every = steps // rows
        sums = learn(
            method, environment.spaces, source, steps, measure=seen, every=every, key=key
        ).sums
        return sums["reward"] / jnp.maximum(sums["ended"], 1.0)

    keys = jnp.stack([seed_key(seed, index) for index in range(seeds)])
    return np.asarray(jax.jit(jax.vmap(run))(keys))


def _last_half(returns: np.ndarray) -> np.ndarray:
    return returns[:, returns.shape[1] // 2 :].mean(1)


def _finding(criteria, curves: dict[str, np.ndarray], steps: int) -> Finding:
    rows = next(iter(curves.values())).shape[1]
    at = steps * np.arange(1, rows + 1) / rows
    return Finding(
        criteria,
        {"last_half": {name: _last_half(y).tolist() for name, y in curves.items()}},
        {name: (at, y) for name, y in curves.items()},
        across="steps",
        up="return while learning",
    )


def _bounded_steps(
    seed: int, *, at_least: float, at_most: float, fixed: float, **scale: Any
) -> Finding:
    tenth = scale["steps"] / 10
    arms = {
        "bounded": StreamQ(exploration_decay_updates=tenth),
        "fixed": StreamQ(exploration_decay_updates=tenth, bounded=False, learning_rate=fixed),
    }
    found = {name: _returns(method, CartPole(), seed, **scale) for name, method in arms.items()}
    return _finding(
        (
            Criterion(
                "return on cart pole over the last half of the steps, with bounded steps",
                mean_of(_last_half(found["bounded"])),
                at_least=at_least,
            ),
            Criterion(
                f"the same with a fixed step size of {fixed:g}",
                mean_of(_last_half(found["fixed"])),
                at_most=at_most,
            ),
        ),
        found,
        scale["steps"],
    )


def _same_constants(seed: int, *, at_least: float, **scale: Any) -> Finding:
    tasks = {"cart pole": CartPole(), "pendulum": Pendulum()}
    scores = {}
    for name, task in tasks.items():
        assert task.reference_returns is not None
        low, high = task.reference_returns
        scores[name] = 100.0 * (_returns(StreamAC(), task, seed, **scale) - low) / (high - low)
    return _finding(
        tuple(
            Criterion(
                f"score on {name} over the last half of the steps",
                mean_of(_last_half(score)),
                at_least=at_least,
            )
            for name, score in scores.items()
        ),
        scores,
        scale["steps"],
    )


_SMOKE = {"steps": 400, "seeds": 3, "rows": 4}
_SMALL = {"steps": 100_000, "seeds": 4, "rows": 10}

CLAIMS = (
    Claim(
        "stream-q-needs-bounded-steps",
        "Stream Q(λ) learns to balance a pole from each step once, with returns of at least 250 "
        "over the second half of 100,000 steps; with a fixed step size of 0.01 instead of the "
        "bounded one they stay below 100.",
        ("StreamQ",),
        "elsayed2024streaming",
        "the section on overshooting-bounded gradient descent and its ablation; the task and the "
        "numbers are ours",
        {
            "smoke": {"at_least": 250.0, "at_most": 100.0, "fixed": 0.01, **_SMOKE},
            "small": {"at_least": 250.0, "at_most": 100.0, "fixed": 0.01, **_SMALL},
        },
        _bounded_steps,
    ),
    Claim(
        "stream-ac-keeps-its-constants",
        "Stream AC(λ) with the same constants gets half of the way from a random to an expert "
        "policy, over the second half of 100,000 steps, on a task with discrete actions (cart "
        "pole) and on one with continuous ones (pendulum).",
        ("StreamAC",),
        "elsayed2024streaming",
        "the abstract (a single set of hyper-parameters); the tasks and the numbers are ours",
        {"smoke": {"at_least": 50.0, **_SMOKE}, "small": {"at_least": 50.0, **_SMALL}},
        _same_constants,
        learned="Fails on the pendulum, where 100,000 steps bring a tenth of the way; cart pole is "
        "at its limit after a third of them. Two causes were not told apart: the paper trains for "
        "two million steps on tasks with continuous actions, and it learns from actions before "
        "they are clipped, which this method does not see.",
    ),
)
