"""Acting in copies of a host environment: whole episodes for evaluation, rows for datasets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from headwater.core.errors import SpecificationError
from headwater.environments.environment import AbstractHostTask

HostAct = Callable[[np.ndarray, int], Any]
"""From observations `[seed, copy, observation]` and the number of the step to canonical actions
`[seed, copy, action]` (or integers `[seed, copy]`)."""

_MOST_COPIES = 10
"""Copies per seed unless told: more of them bring nothing where they are stepped in turn."""


class HostEpisodes(NamedTuple):
    """Whole episodes.

    **Arguments:** `returns`: undiscounted; `lengths`: in steps.
    """

    returns: Float[np.ndarray, "seed episode"]
    lengths: Int[np.ndarray, "seed episode"]


def host_episodes(
    task: AbstractHostTask,
    act: HostAct,
    *,
    seeds: int,
    episodes: int,
    seed: int,
    copies: int | None = None,
) -> HostEpisodes:
    """Follows `episodes` episodes for each of `seeds` policies to their ends.

    Every copy has a fixed number of episodes to do, and all of them count, so that short episodes
    are not preferred.

    **Arguments:** `act`: acts for all seeds at once; `seed`: of the environments; `copies`: of the
    environment for each policy, 10 at most unless told.

    Raises `SpecificationError` if the task has no time limit: its episodes may never end.
    """
    if task.spaces.horizon is None:
        raise SpecificationError(
            f"{task.name} has no time limit, so its episodes may never end: set one, with "
            f"max_episode_steps or gymnasium.wrappers.TimeLimit"
        )
    copies = min(episodes, copies or _MOST_COPIES)
    # Copy c does episodes c, c + copies, c + 2·copies, …
    quota = np.tile([len(range(c, episodes, copies)) for c in range(copies)], seeds)
    returns = np.zeros((seeds, episodes), np.float64)
    lengths = np.zeros((seeds, episodes), np.int64)
    rows, columns = np.divmod(np.arange(seeds * copies), copies)
    done = np.zeros(seeds * copies, np.int64)
    environments = task.open(seeds * copies)
    try:
        observation = environments.reset(spread_seeds(seed, seeds * copies))
        t = 0
        while (done < quota).any():
            step = environments.step(_act(act, observation, seeds, t))
            counts = step.valid & (done < quota)
            at = (rows[counts], columns[counts] + done[counts] * copies)
            returns[at] += step.reward[counts]
            lengths[at] += 1
            done += counts & (step.terminal | step.truncated)
            observation = step.observation
            t += 1
    finally:
        environments.close()
    return HostEpisodes(returns, lengths)


def host_episode_returns(
    task: AbstractHostTask,
    act: HostAct,
    *,
    seeds: int,
    episodes: int,
    seed: int,
    copies: int | None = None,
) -> Float[np.ndarray, "seed episode"]:
    """The undiscounted returns of `host_episodes`, which see."""
    return host_episodes(
        task, act, seeds=seeds, episodes=episodes, seed=seed, copies=copies
    ).returns


def host_transitions(
    task: AbstractHostTask, act: HostAct, *, steps: int, seed: int, copies: int = 1
) -> dict[str, np.ndarray]:
    """Logs `steps` steps in `copies` copies, those of each copy one after the other.

    The last episode of each copy is cut where its share of the steps ends, and its last row is
    marked as truncated.

    **Arguments:** `act`: as in `host_episodes`, with one seed; `seed`: of the environments.

    **Returns:** `observation`, `action` (canonical), `reward`, `next_observation`, `terminal`,
    `truncated` and `copy`, each with `steps` rows.
    """
    share = np.asarray([len(range(c, steps, copies)) for c in range(copies)])
    start = np.concatenate([[0], np.cumsum(share)[:-1]])
    done = np.zeros(copies, np.int64)
    columns: dict[str, np.ndarray] = {}
    environments = task.open(copies)
    try:
        observation = environments.reset(spread_seeds(seed, copies))
        t = 0
        while (done < share).any():
            action = _act(act, observation, 1, t)
            step = environments.step(action)
            counts = step.valid & (done < share)
            seen = {
                "observation": observation,
                "action": action,
                "reward": step.reward,
                "next_observation": step.next_observation,
                "terminal": step.terminal,
                "truncated": step.truncated,
            }
            if not columns:
                columns = {k: np.zeros((steps, *v.shape[1:]), v.dtype) for k, v in seen.items()}
            at = start[counts] + done[counts]
            for name, value in seen.items():
                columns[name][at] = value[counts]
            done += counts
            observation = step.observation
            t += 1
    finally:
        environments.close()
    last = (start + share - 1)[share > 0]
    columns["truncated"][last] |= ~columns["terminal"][last]
    columns["copy"] = np.repeat(np.arange(copies), share)
    return columns


def spread_seeds(seed: int, copies: int) -> Int[np.ndarray, " copy"]:
    """One seed for each copy, unrelated to those of other `seed`s."""
    state = np.random.SeedSequence(seed).generate_state(copies, np.uint32)
    return (state >> 1).astype(np.int64)


def _act(act: HostAct, observation: np.ndarray, seeds: int, t: int) -> np.ndarray:
    action = np.asarray(act(observation.reshape(seeds, -1, observation.shape[-1]), t))
    return action.reshape(observation.shape[0], *action.shape[2:])
