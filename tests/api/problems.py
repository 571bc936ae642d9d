"""Small logs, and comparison of runs, for the tests of the verbs."""

from pathlib import Path

import jax
import numpy as np

from headwater.api.run import Run
from headwater.datasets.dataset import Dataset

EPISODES, LENGTH = 8, 15


def pendulum_log(*, marked: bool = False, environment: str | None = "pendulum", **metadata):
    """Random transitions in the spaces of `pendulum`, in the user's units.

    `marked`: the action is +1.5 in the two best of the eight episodes and -1.5 in the others.
    """
    draw = np.random.default_rng(0)
    count = EPISODES * LENGTH
    episode = np.arange(count) // LENGTH
    best = (episode == 2) | (episode == 5)
    if marked:
        actions = np.where(best, 1.5, -1.5)[:, None]
        rewards = np.where(best, 1.0, 0.0)
    else:
        actions, rewards = draw.uniform(-2, 2, (count, 1)), draw.normal(size=count)
    if environment is not None:
        metadata["environment"] = environment
    return Dataset.from_arrays(
        draw.normal(size=(count, 3)).astype(np.float32),
        actions.astype(np.float32),
        rewards,
        np.zeros(count, bool),
        np.arange(count) % LENGTH == LENGTH - 1,
        draw.normal(size=(count, 3)).astype(np.float32),
        action_low=-2.0,
        action_high=2.0,
        horizon=200,
        metadata=metadata,
    )


def cart_pole_log() -> Dataset:
    """Random transitions in the spaces of `cart-pole`."""
    draw = np.random.default_rng(0)
    ends = np.arange(60) % 12 == 11
    observations = draw.normal(size=(60, 4)).astype(np.float32)
    return Dataset.from_arrays(
        observations, draw.integers(0, 2, 60), np.ones(60), ends, action_count=2
    )


def write_responses(path: Path, rows: int = 24) -> dict[str, np.ndarray]:
    """A table of sessions of six rows with a reward, a like and a share each; what was written.

    Nothing says what was seen after the last row of a session, of which half are cut there.
    """
    draw = np.random.default_rng(0)
    last = np.arange(rows) % 6 == 5
    columns: dict[str, np.ndarray] = {
        "obs_0": draw.normal(size=rows),
        "obs_1": draw.normal(size=rows),
        "action": draw.integers(0, 3, rows),
        "reward": draw.normal(size=rows),
        "like": draw.integers(0, 2, rows),
        "share": draw.integers(0, 2, rows),
        "terminated": (last & (np.arange(rows) % 12 < 6)).astype(int),
        "truncated": (last & (np.arange(rows) % 12 >= 6)).astype(int),
    }
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return columns


def without_speed(rows: list[dict]) -> list[dict]:
    """Logged rows without the one number that may differ."""
    return [{k: v for k, v in row.items() if k != "updates_per_second"} for row in rows]


def assert_same(one: Run, other: Run) -> None:
    """Two runs agree to the bit, logs included."""
    ours, theirs = jax.tree.leaves(one.state), jax.tree.leaves(other.state)
    assert len(ours) == len(theirs) > 0
    for x, y in zip(ours, theirs):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert one.method == other.method
    assert without_speed(one.metrics) == without_speed(other.metrics)
    assert one.evaluations == other.evaluations


def differ(one: Run, other: Run) -> bool:
    """Whether any number of their states differs."""
    return any(
        np.asarray(x).tobytes() != np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state))
    )
