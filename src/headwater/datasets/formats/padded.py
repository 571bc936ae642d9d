"""Arrays of whole episodes: padded to the longest on an axis of their own, or with one observation
more for each episode than there are steps."""

import re

import numpy as np

from headwater.core.errors import DataError
from headwater.datasets.columns.roles import Chunk
from headwater.datasets.episodes.ends import RECORDS

_LENGTHS = ("lengths", "length", "seq_lens", "seq_lengths", "num_steps", "n_steps")
_LENGTHS += ("episode_lengths", "episode_length", "traj_lengths", "trajectory_lengths", "lens")
_MASKS = ("mask", "masks", "valid", "valid_mask", "is_valid", "attention_mask", "validity")
_FLAGS = ("terminals", "truncations", "dones", "ends", "starts", "continues")
SPLITS = "indices"
"""The array that says where all episodes but the first begin, as imitation calls it."""
_OF_EPISODES = ("terminals", "truncations", "dones")
_NEARER = 0.5
"""Distance between neighbours along the axis of steps, as a share of that along the other one."""


def is_length(name: str) -> bool:
    """Whether an array of this name says how many steps of each episode count."""
    return re.sub(r"[^a-z]+", "_", name.lower()) in _LENGTHS + _MASKS


def is_padded(chunk: Chunk) -> bool:
    """Whether rewards and actions are laid out `[episode, step, …]`."""
    shape = np.shape(chunk.get("rewards", ()))
    wide = len(shape) in (2, 3) and shape[1] > 1 and (len(shape) == 2 or shape[2] == 1)
    return (
        wide and np.ndim(chunk["observations"]) >= 2 and np.shape(chunk["actions"])[:2] == shape[:2]
    )


def unrolled(chunk: Chunk, extra: dict[str, np.ndarray]) -> tuple[Chunk, str]:
    """The steps of all episodes end to end, and a sentence on how many of each were taken.

    **Arguments:** `chunk`: arrays `[episode, step, …]` by role, observations with one step more or
    not; `extra`: arrays that say how long the episodes are: `[episode]`, or `[episode, step]` where
    true or 1 means that the step counts.

    Where stored successors show that steps follow each other along the first axis, as in a buffer
    of several environments `[step, environment, …]`, it is read so. Raises `DataError` if shapes do
    not fit, or if it is left open what is padding, or which axis is that of steps.
    """
    if not extra and _steps_come_first(chunk):
        swapped = {role: _swapped(values) for role, values in chunk.items()}
        rows, how = unrolled(swapped, {})
        return rows, how.replace("[episode, step, …]", "[step, environment, …]", 1)
    episodes, steps = np.shape(chunk["rewards"])[:2]
    rewards = chunk["rewards"].reshape(episodes, steps)
    observations = chunk["observations"]
    if observations.shape[:2] not in ((episodes, steps), (episodes, steps + 1)):
        raise DataError(
            f"rewards are laid out [episode, step] = {list(rewards.shape)} but observations have "
            f"the shape {list(observations.shape)}: both need the same first two axes (or one "
            "observation more for each episode), or all arrays one row for each step"
        )
    found = dict(chunk, rewards=rewards)
    of_last: dict[str, np.ndarray] = {}
    for role in _FLAGS:
        if role not in found:
            continue
        each = found[role].shape in ((episodes,), (episodes, 1))
        if role in _OF_EPISODES and steps > 1 and each:
            # One value for each episode: it stands for its last step.
            of_last[role] = found.pop(role).reshape(-1)
        else:
            found[role] = _flags(found[role], role, episodes, steps)
    lengths, how = _lengths(found, extra, episodes, steps)
    if np.any(lengths < 1):
        raise DataError(f"episode {np.argmin(lengths)} has no steps: leave it out")
    keep = np.arange(steps) < lengths[:, None]
    last = np.arange(steps) == lengths[:, None] - 1
    found |= {role: last * values[:, None] for role, values in of_last.items()}
    rows: Chunk = {}
    for role, values in found.items():
        if values.shape[:2] != (episodes, steps) and role != "observations":
            raise DataError(
                f"{role} have the shape {list(values.shape)} but rewards are laid out [episode, "
                f"step] = {list(rewards.shape)}: all arrays need the same first two axes"
            )
        rows[role] = values[:, :steps][keep]
    if observations.shape[1] == steps + 1 and "next_observations" not in rows:
        rows["next_observations"] = observations[:, 1:][keep]
    rows[RECORDS] = np.repeat(np.arange(episodes), lengths)
    return rows, f"arrays are laid out [episode, step, …]: {how}"


def _steps_come_first(chunk: Chunk) -> bool:
    """Whether rows follow each other along the first axis rather than along the second.

    Raises `DataError` if it looks so, but there are no successors to tell it from.
    """
    observations = chunk["observations"]
    shape = np.shape(chunk["rewards"])[:2]
    if observations.shape[:2] != shape or shape[0] < 2:
        return False
    following = chunk.get("next_observations")
    if following is not None and following.shape == observations.shape:
        along = _all(np.equal, following[:, :-1], shape[1], observations[:, 1:])
        across = _all(np.equal, following[:-1], shape[1], observations[1:])
        return bool(across.mean() > max(along.mean(), 0.5))
    if not any(
        np.any(np.asarray(chunk[role]).reshape(shape)[:, :-1])
        for role in ("terminals", "truncations", "dones", "ends")
        if np.size(chunk.get(role, ())) == np.prod(shape)
    ):
        return False
    values = observations.reshape(*shape, -1).astype(np.float64)
    along, across = (np.nanmedian(np.abs(np.diff(values, axis=axis))) for axis in (1, 0))
    if across < _NEARER * along:
        raise DataError(
            f"arrays are laid out {list(shape)}, and episodes end within the second axis, along "
            "which observations differ more than along the first, as in a buffer of several "
            "environments [step, environment, …]: swap the first two axes of every array "
            "(np.swapaxes(array, 0, 1)), or, if the second axis is that of steps, add an array "
            f"'lengths' of {shape[0]:,} times {shape[1]:,}"
        )
    return False


def _swapped(values: np.ndarray) -> np.ndarray:
    return np.swapaxes(values, 0, 1) if values.ndim > 1 else values


def _flags(values: np.ndarray, role: str, episodes: int, steps: int) -> np.ndarray:
    if (values.shape == (episodes, 1) and steps > 1) or values.shape == (episodes,):
        raise DataError(
            f"{role} has one value for each of {episodes} episodes but rewards have {steps} steps "
            "for each: give a flag for every step"
        )
    return values.reshape(values.shape[:2]) if values.ndim == 3 else values


def _lengths(
    found: Chunk, extra: dict[str, np.ndarray], episodes: int, steps: int
) -> tuple[np.ndarray, str]:
    lengths_by_name: dict[str, np.ndarray] = {}
    for name, values in extra.items():
        values = values.reshape(values.shape[:2]) if values.ndim == 3 else values
        if values.shape == (episodes, steps):
            lengths_by_name[name] = _masked(values, name)
        elif values.size == episodes:
            lengths_by_name[name] = _counted(values.reshape(-1), name, steps)
        else:
            raise DataError(
                f"'{name}' has the shape {list(values.shape)}: give one length for each of the "
                f"{episodes} episodes, or a mask [episode, step]"
            )
    for name, lengths in lengths_by_name.items():
        first = next(iter(lengths_by_name))
        different = np.flatnonzero(lengths != lengths_by_name[first])
        if different.size:
            raise DataError(
                f"'{first}' and '{name}' contradict each other on how long episode {different[0]} "
                "is: remove one of them"
            )
    if lengths_by_name:
        name = next(iter(lengths_by_name))
        return lengths_by_name[name], f"'{name}' says how many steps of each episode count"
    missing = np.isnan(found["rewards"]) | _all(np.isnan, found["observations"], steps)
    if missing.any():
        return _masked(~missing, "the first NaN"), "an episode ends before its first NaN"
    zero = found["rewards"] == 0
    zero &= _all(lambda values: values == 0, found["actions"], steps)
    # The last observation, of which there is one more than steps, follows the last step.
    observed = found["observations"][:, -steps:]
    zero &= _all(lambda values: values == 0, observed, steps)
    # How many of the last steps hold nothing but zeros.
    lengths = steps - np.cumprod(zero[:, ::-1], axis=1).sum(1)
    ended = np.zeros((episodes, steps), bool)
    for role in ("terminals", "truncations", "dones", "ends"):
        if role in found:
            ended |= found[role].astype(bool)
    for episode in np.flatnonzero(lengths < steps):
        length = int(lengths[episode])
        if length == 0 or not ended[episode, length - 1]:
            raise DataError(
                f"episode {episode} holds nothing but zeros from step {length} on, which may be "
                "padding or data: add an array 'lengths' with the number of steps of each episode, "
                "or a mask [episode, step]"
            )
    if np.all(lengths == steps):
        return lengths, f"all {steps:,} steps of each of the {episodes:,} episodes count"
    return lengths, "zeros after the end of an episode are padding"


def _all(test, values: np.ndarray, steps: int, *others: np.ndarray) -> np.ndarray:
    """Where all components of a step pass: `[episode, step]`."""
    if values.dtype.kind not in "biuf":
        return np.zeros(values.shape[:2], bool)[:, :steps]
    found = test(values[:, :steps], *others)
    return found.all(axis=tuple(range(2, found.ndim)))


def _masked(mask: np.ndarray, name: str) -> np.ndarray:
    wrong = (mask != 0) & (mask != 1)
    if wrong.any():
        episode, step = np.argwhere(wrong)[0]
        raise DataError(
            f"'{name}' holds {mask[episode, step]} at episode {episode}: a mask is 0 or 1"
        )
    mask = mask.astype(bool)
    again = mask[:, 1:] & ~mask[:, :-1]
    if again.any():
        episode, step = np.argwhere(again)[0]
        raise DataError(
            f"episode {episode} goes on at step {step + 1} after steps that do not count, by "
            f"{name}: an episode's steps come first and its padding last"
        )
    return mask.sum(1)


def _counted(lengths: np.ndarray, name: str, steps: int) -> np.ndarray:
    wrong = (lengths < 1) | (lengths > steps) | (lengths != np.floor(lengths))
    if wrong.any():
        episode = int(np.argmax(wrong))
        raise DataError(
            f"'{name}' says that episode {episode} has {lengths[episode]} steps, but a length is a "
            f"whole number from 1 to {steps}"
        )
    return lengths.astype(np.int64)


def is_split(chunk: Chunk, splits: np.ndarray) -> bool:
    """Whether observations have one row more than actions for each of the episodes that begin at 0
    and at `splits`."""
    steps = len(chunk["actions"])
    if splits.ndim != 1 or splits.dtype.kind not in "iu":
        return False
    return len(chunk["observations"]) == steps + splits.size + 1


def split(chunk: Chunk, splits: np.ndarray) -> tuple[Chunk, str]:
    """The steps of all episodes with their successors, and a sentence on how they were read.

    **Arguments:** `splits`: `[episode - 1]`, the first step of each episode but the first. A flag
    for each episode stands for its last step. Raises `DataError` if they are in no order.
    """
    steps = len(chunk["actions"])
    starts = np.concatenate([[0], splits.astype(np.int64), [steps]])
    lengths = np.diff(starts)
    if np.any(lengths < 1):
        episode = int(np.argmax(lengths < 1))
        raise DataError(
            f"'{SPLITS}' says that episode {episode} begins at step {starts[episode]} and the next "
            f"at {starts[episode + 1]}: every episode needs a step, and they follow each other"
        )
    number = np.repeat(np.arange(lengths.size), lengths)
    observed = np.arange(steps) + number
    found = {
        **chunk,
        "observations": chunk["observations"][observed],
        "next_observations": chunk["observations"][observed + 1],
        RECORDS: number,
    }
    last = np.zeros(steps, bool)
    last[starts[1:] - 1] = True
    for role in _OF_EPISODES:
        if role in found and np.shape(found[role]) in ((lengths.size,), (lengths.size, 1)):
            found[role] = last & (found[role].reshape(-1)[number] != 0)
    return found, (
        f"'{SPLITS}' says where each of {lengths.size:,} episodes begins, whose observations are "
        "one more than its steps"
    )
