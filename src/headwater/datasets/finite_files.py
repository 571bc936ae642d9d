"""Finite processes, and logs of their episodes and comparisons, in files."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.hypotheses import FiniteTask
from headwater.core.records import EpisodeComparisons, Episodes
from headwater.datasets.arrays import array_of, read_archive, read_table

_COLUMNS = ("episode", "state", "action", "reward", "next_state")
_WHOLE = ("state", "action")
_LARGEST = 2**31 - 1
"""Of the numbers of states and actions."""


def read_process(path: str | Path) -> FiniteTask:
    """The process in an archive of arrays (`.npz`): see `FiniteTask.from_arrays`.

    Raises `DataError`, naming the file, for what is damaged or does not fit together.
    """
    arrays = read_archive(Path(path))
    try:
        return FiniteTask.from_arrays(arrays)
    except (SpecificationError, DataError) as error:
        raise DataError(f"{path}: {error}") from None


def write_process(path: str | Path, task: FiniteTask) -> None:
    """Writes what `read_process` reads."""
    with Path(path).open("wb") as file:
        np.savez(file, **task.to_arrays())  # pyright: ignore[reportArgumentType]


def read_episodes(path: str | Path) -> Episodes:
    """Logged episodes of a finite process.

    An archive (`.npz`) holds `state` `[episode, step + 1]`, `action` and `reward` `[episode,
    step]`, and perhaps `cost`. A table (`.csv`, `.parquet`) has one row for each step, in order,
    with the columns `episode`, `state`, `action`, `reward` and `next_state`; all episodes have
    equally many rows.

    Raises `DataError`, naming the file and the column, for anything else.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".csv", ".parquet"):
            return _episodes_of_table(read_table(path))
        arrays = read_archive(path)
        return _episodes(arrays, "")
    except (SpecificationError, DataError) as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def read_episode_comparisons(path: str | Path) -> EpisodeComparisons:
    """Logged pairs of episodes and which of the two was preferred.

    An archive (`.npz`) with `first_state`, `first_action`, `second_state`, `second_action` as in
    `read_episodes`, and `first_preferred` `[pair]`, zero or one. Raises what that raises.
    """
    path = Path(path)
    arrays = read_archive(path)
    try:
        first, second = (_episodes(arrays, name, rewards=False) for name in ("first_", "second_"))
        preferred = array_of(arrays, "first_preferred", "biuf")
        if preferred.shape != first.action.shape[:1] or not np.isin(preferred, (0, 1)).all():
            raise DataError(
                f"first_preferred has shape {preferred.shape}: it needs a zero or a one for each "
                f"of the {len(first.action)} pairs"
            )
        if first.action.shape != second.action.shape:
            raise DataError("first_action and second_action differ in shape: each pair needs both")
        return EpisodeComparisons(first, second, jnp.asarray(preferred.astype(bool)))
    except (SpecificationError, DataError) as error:
        raise DataError(f"{path}: {error}") from None


def write_log(path: str | Path, data: Episodes | EpisodeComparisons) -> None:
    """Writes episodes or comparisons, with any leading axes, as what reads them expects."""

    def columns(episodes: Episodes, prefix: str) -> dict[str, np.ndarray]:
        lead = np.ndim(episodes.action) - 1
        found = {
            name: np.asarray(value).reshape(-1, *np.shape(value)[lead:])
            for name, value in vars(episodes).items()
            if value is not None
        }
        return {prefix + name: value for name, value in found.items()}

    if isinstance(data, Episodes):
        arrays = columns(data, "")
    else:
        arrays = {**columns(data.first, "first_"), **columns(data.second, "second_")}
        arrays["first_preferred"] = np.asarray(data.first_preferred).reshape(-1)
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def _episodes(arrays: dict[str, np.ndarray], prefix: str, *, rewards: bool = True) -> Episodes:
    state, action = (_numbers(arrays, prefix + name, "iu") for name in _WHOLE)
    reward = np.zeros(action.shape, np.float32)
    if rewards:
        reward = array_of(arrays, prefix + "reward", "biuf").astype(np.float32)
    if state.ndim != 2 or action.ndim != 2 or reward.ndim != 2:
        raise DataError(
            f"{prefix}state, {prefix}action and rewards have shapes {state.shape}, {action.shape} "
            f"and {reward.shape}: each needs [episode, step]"
        )
    if not len(state) == len(action) == len(reward):
        raise DataError(
            f"there are {len(state)}, {len(action)} and {len(reward)} episodes in {prefix}state, "
            f"{prefix}action and rewards: they must be as many"
        )
    if not len(action):
        raise DataError("there is no episode")
    cost = arrays.get(prefix + "cost")
    if cost is not None:
        cost = jnp.asarray(array_of(arrays, prefix + "cost", "biuf"), jnp.float32)
        if cost.ndim != 3 or cost.shape[:2] != action.shape:
            raise DataError(f"cost has shape {cost.shape}: it needs [episode, step, constraint]")
    return Episodes(
        jnp.asarray(state, jnp.int32), jnp.asarray(action, jnp.int32), jnp.asarray(reward), cost
    )


def _numbers(arrays: dict[str, np.ndarray], name: str, kinds: str) -> np.ndarray:
    """Numbers of states or actions. Raises `DataError` for those that 32 bits do not hold."""
    found = array_of(arrays, name, kinds)
    beyond = found[np.abs(found.astype(np.float64)) > _LARGEST]
    if beyond.size:
        raise DataError(f"'{name}' holds {beyond.flat[0]:g}: it must be at most {_LARGEST:,}")
    return found


def _episodes_of_table(columns: dict[str, np.ndarray]) -> Episodes:
    found = {name: array_of(columns, name, "biuf") for name in _COLUMNS}
    for name in ("state", "action", "next_state"):
        _numbers(columns, name, "biuf")
    for name in ("episode", "state", "action", "next_state"):
        wrong = np.flatnonzero(found[name] != np.round(found[name]))
        if len(wrong):
            raise DataError(f"column '{name}', row {wrong[0] + 1}: {found[name][wrong[0]]} is not "
                            "a whole number")  # fmt: skip
    episode = found["episode"]
    starts = np.flatnonzero(np.diff(episode, prepend=np.nan) != 0)
    lengths = np.diff(starts, append=len(episode))
    if len(np.unique(episode)) != len(starts):
        raise DataError("rows of one episode must stand together: sort them by episode and step")
    other = np.flatnonzero(lengths != lengths[0])
    if len(other):
        at = other[0]
        raise DataError(
            f"episode {int(episode[starts[at]])} has {lengths[at]} rows, but the first has "
            f"{lengths[0]}: all episodes of a finite process have equally many"
        )
    shape = (len(starts), int(lengths[0]))
    state, action, reward, following = (
        found[name].reshape(shape) for name in ("state", "action", "reward", "next_state")
    )
    wrong = np.argwhere(state[:, 1:] != following[:, :-1])
    if len(wrong):
        row = wrong[0][0] * shape[1] + wrong[0][1]
        raise DataError(
            f"row {row + 1}: next_state is {following[tuple(wrong[0])]:g}, but the next row of the "
            f"episode has state {state[wrong[0][0], wrong[0][1] + 1]:g}"
        )
    positions = np.concatenate([state, following[:, -1:]], axis=1)
    return Episodes(
        jnp.asarray(positions, jnp.int32),
        jnp.asarray(action, jnp.int32),
        jnp.asarray(reward, jnp.float32),
    )
