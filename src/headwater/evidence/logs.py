"""Logs of graded quality, recorded for claims in environments that are pure JAX."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Key

from headwater.core.method import Observation, UnbatchedAction
from headwater.core.records import Transitions
from headwater.core.spaces import Box
from headwater.datasets.dataset import Dataset
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.interaction import begin, interact

Act = Callable[[Array, Observation, Key[Array, ""]], UnbatchedAction]
"""From a skill, an observation and a key to an action."""


def record(
    environment: AbstractEnvironment,
    act: Act,
    skills: np.ndarray,
    *,
    steps: int,
    key: Key[Array, ""],
    name: str = "",
) -> Dataset:
    """`steps` steps for each of `skills`, every one from a fresh start and truncated at the end.

    **Arguments:** `act`: `(skill, observation, key)` to an action; `skills`: one number for each
    piece of the log; `name`: of the log.
    """
    keys = jax.random.split(key, len(skills))
    rows = _walk(environment, act, np.asarray(skills, np.float32), steps, keys)
    return dataset_of(environment, rows, name)


def dataset_of(environment: AbstractEnvironment, rows: Transitions, name: str = "") -> Dataset:
    """A dataset of transitions `[piece, step, …]`, the last step of each piece truncated."""
    columns = {
        field: np.asarray(getattr(rows, field))
        for field in (
            "observation",
            "action",
            "reward",
            "terminal",
            "truncated",
            "next_observation",
        )
    }
    columns["truncated"] = columns["truncated"].copy()
    columns["truncated"][:, -1] |= ~columns["terminal"][:, -1]
    flat = {field: x.reshape(-1, *x.shape[2:]) for field, x in columns.items()}
    space, action = environment.spaces.action, flat["action"]
    limits: dict[str, Any] = {"action_count": environment.spaces.action_size}
    if isinstance(space, Box):
        action = space.from_canonical(action.astype(np.float64))
        limits = {"action_low": space.low, "action_high": space.high}
    return Dataset.from_arrays(
        flat["observation"],
        action,
        flat["reward"],
        flat["terminal"],
        flat["truncated"],
        flat["next_observation"],
        horizon=environment.spaces.horizon,
        metadata={"name": name, "environment": environment.name},
        **limits,
    )


def normalised(environment: AbstractEnvironment, returns: np.ndarray) -> np.ndarray:
    """Returns on the scale from the environment's random policy (0) to its expert (100)."""
    references = environment.reference_returns
    assert references is not None
    random, expert = references
    return 100.0 * (np.asarray(returns) - random) / (expert - random)


@eqx.filter_jit
def _walk(environment, act, skills, steps, keys):
    def piece(skill, key):
        start_key, walk_key = jax.random.split(key)
        at = begin(environment, 1, key=start_key)
        follow = lambda observation, key: act(skill, observation, key)
        rows = interact(environment, at, follow, steps=steps, key=walk_key)[1]
        return jax.tree.map(lambda x: x[:, 0], rows)

    return jax.vmap(piece)(skills, keys)
