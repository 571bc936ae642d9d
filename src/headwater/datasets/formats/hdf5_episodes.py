"""HDF5 files that hold each episode apart: d3rlpy 2, robomimic, ManiSkill and their kin."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.datasets.columns.roles import ROLES, Chunk, Mapping, Reading, resolve
from headwater.datasets.episodes.ends import RECORDS
from headwater.datasets.formats.hdf5_file import damaged, open_file, read_columns

_NUMBERED = re.compile(r"(.+?)_([0-9]{1,9})(?:_([0-9]{1,4}))?")
_ENDS = ("terminals", "truncations", "dones")


def is_numbered(names: Sequence[str]) -> bool:
    """Whether arrays are called `observations_0`, `observations_1`, … as d3rlpy 2 writes them."""
    present = set(names)
    observed = "observations_0" in present or "observations_0_0" in present
    return observed and "actions_0" in present and "rewards_0" in present


def open_numbered(path: Path, names: Sequence[str], mapping: Mapping | None, rows: int | None):
    """A dump of d3rlpy 2: what is stored beside the columns, and the columns in chunks."""
    with open_file(path) as file:
        # A flag of a whole episode is no array of rows, so it is not among the names.
        everything = list(file)
    parts: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for name in everything:
        found = _NUMBERED.fullmatch(name)
        if found:
            column, episode, part = found.group(1), int(found.group(2)), int(found.group(3) or 0)
            parts.setdefault(column, {}).setdefault(episode, []).append((part, name))
    episodes = sorted(parts["observations"])
    reading = resolve(sorted(parts), mapping)
    for columns in reading.columns.values():
        for column in columns:
            missing = [number for number in episodes if number not in parts[column]]
            if missing:
                raise DataError(
                    f"'{column}_{missing[0]}' is missing, though there are observations of episode "
                    f"{missing[0]}: the dump is incomplete; write it again"
                )

    def of(episode: int) -> dict[str, list[str]]:
        return {
            role: [name for column in columns for _, name in sorted(parts[column][episode])]
            for role, columns in reading.columns.items()
        }

    note = f"each of the {len(episodes):,} episodes has its own arrays, as d3rlpy 2 writes them"
    stored = {"reading": reading, "metadata": {"reading": [note]}}
    columns_of_episodes = ((str(episode), of(episode)) for episode in episodes)
    return stored, _chunks(path, columns_of_episodes, rows, dones_end=False)


def groups_of_episodes(file) -> list[str]:
    """The groups that hold an episode each, in the order of their numbers."""
    import h5py

    for holder in ("data", ""):
        group = file.get(holder, None) if holder else file
        if not isinstance(group, h5py.Group):
            continue
        prefix = f"{holder}/" if holder else ""
        found = [
            f"{prefix}{name}"
            for name in group
            if isinstance(group.get(name), h5py.Group) and _plays(group[name], "actions")
        ]
        if found:
            return sorted(found, key=_natural)
    return []


def open_groups(path: Path, mapping: Mapping | None, rows: int | None):
    """A file with a group for each episode: what is stored beside, and the columns in chunks.

    Observations may be a group of several arrays: all vectors among them are taken, in the order of
    their names, or those that the user lists. Raises `DataError` if an episode lacks one.
    """
    import h5py

    with open_file(path) as file:
        try:
            groups = groups_of_episodes(file)
            first = file[groups[0]]
            sets = [name for name in first if isinstance(first.get(name), h5py.Dataset)]
            nested = {
                role: name
                for role in ("observations", "next_observations")
                for name in ROLES[role]
                if isinstance(first.get(name), h5py.Group)
            }
            keys, left = vectors_of(first[nested["observations"]]) if nested else ([], [])
            environment = _environment(file)
            masks = [f"mask/{name}" for name in file["mask"]] if "mask" in file else []
        except DataError:
            raise
        except Exception as error:  # Whatever a damaged file makes the library trip on.
            raise damaged(error) from None
    given = dict(mapping or {})
    if nested:
        keys = _chosen(given.pop("observations", None), keys, left)
        given.pop("next_observations", None)
    notes = [f"each of the {len(groups):,} groups such as '{groups[0]}' is an episode"]
    rewarded = "rewards" in given or any(name in ROLES["rewards"] for name in sets)
    pretended = [] if rewarded else ["rewards"]
    if not rewarded:
        notes.append("no rewards are stored: 0 stands in their place, which serves imitation alone")
    reading = resolve([*sets, *nested.values(), *pretended], given)
    columns = dict(reading.columns)
    if not rewarded:
        del columns["rewards"]
    for role, name in nested.items():
        columns[role] = [f"{name}/{key}" for key in keys]
    if nested:
        notes.append(f"observations are {', '.join(columns['observations'])}")
        rest = [key for key in left if key not in keys]
        if rest:
            notes.append(f"what is no vector is left out: {', '.join(rest)}")
    dones_end = "dones" in columns and "terminals" not in columns and "dones" not in given
    if dones_end:
        name = columns["dones"][0]
        notes.append(
            f"'{name}' is taken as the end of the process, as robomimic learns from it; if it only "
            f"marks the end of the record, say columns={{'dones': '{name}'}} and dones='truncated'"
        )
    if masks:
        notes.append(f"lists of episodes are not used, all are read: {', '.join(masks)}")
    joined = Reading(
        {**reading.columns, **columns}, reading.declared, reading.unused, reading.looks
    )
    metadata: dict[str, Any] = {"reading": notes}
    if environment is not None:
        metadata["environment"] = environment
    columns_of_episodes = (
        (group, {role: [f"{group}/{name}" for name in names] for role, names in columns.items()})
        for group in groups
    )
    return {"reading": joined, "metadata": metadata}, _chunks(
        path, columns_of_episodes, rows, dones_end
    )


def _chunks(
    path: Path,
    columns_of_episodes: Iterator[tuple[str, dict[str, list[str]]]],
    rows: int | None,
    dones_end: bool,
) -> Iterator[Chunk]:
    held: list[Chunk] = []
    with open_file(path) as file:
        for number, (where, columns) in enumerate(columns_of_episodes):
            for names in columns.values():
                for name in names:
                    if name not in file:
                        raise DataError(f"'{name}' is missing, which other episodes have")
            held.append(_episode(file, columns, where, number, dones_end))
            if rows is not None and sum(len(part["rewards"]) for part in held) >= rows:
                yield _together(held)
                held = []
    if held:
        yield _together(held)


def _episode(
    file, columns: dict[str, list[str]], where: str, number: int, dones_end: bool
) -> Chunk:
    found: Chunk = {}
    for role, names in columns.items():
        if file[names[0]].shape == ():
            found[role] = np.asarray(file[names[0]][()])
            continue
        parts = [read_columns(file, [name], slice(None)) for name in names]
        lengths = {part.shape[0] for part in parts}
        if len(lengths) > 1:
            raise DataError(
                f"the arrays of {role} in episode '{where}' have {min(lengths):,} and "
                f"{max(lengths):,} rows: they must have the same length"
            )
        flat = [part.reshape(part.shape[0], -1) for part in parts] if len(parts) > 1 else parts
        found[role] = np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]
    steps = found["actions"].shape[0] if found["actions"].ndim else 0
    if not steps:
        raise DataError(f"episode '{where}' has no actions: leave it out")
    found.setdefault("rewards", np.zeros(steps, np.float32))
    for role in ("observations", "next_observations"):
        if role in found and found[role].dtype.kind not in "biuf":
            raise DataError(f"{role} of episode '{where}' are no numbers")
    observations = found["observations"]
    if observations.ndim and observations.shape[0] == steps + 1:
        found.setdefault("next_observations", observations[1:])
        found["observations"] = observations[:-1]
    last = np.arange(steps) == steps - 1
    for role in _ENDS:
        if role in found and found[role].ndim == 0:
            if found[role].dtype.kind not in "biuf":
                raise DataError(
                    f"{role} of episode '{where}' has type {found[role].dtype}: no flag"
                )
            found[role] = last & bool(found[role])
    for role, values in found.items():
        if values.ndim == 0 or values.shape[0] != steps:
            raise DataError(
                f"{role} of episode '{where}' has {values.shape[0] if values.ndim else 1:,} rows "
                f"but actions has {steps:,}: all must have the same length (observations may have "
                "one more)"
            )
    if dones_end:
        found["terminals"] = found.pop("dones").reshape(-1)
    if "terminals" in found:
        ended = found["terminals"].reshape(-1) != 0
        cut = found.get("truncations", np.zeros(steps, bool)).reshape(-1) != 0
        found["truncations"] = cut | (last & ~ended)
    found[RECORDS] = np.full(steps, number)
    return found


def _together(held: list[Chunk]) -> Chunk:
    joined: Chunk = {}
    for role in held[0]:
        if any(role not in part for part in held):
            raise DataError(f"some episodes have {role} and others do not: all need the same")
        shapes = {part[role].shape[1:] for part in held}
        if len(shapes) > 1:
            raise DataError(
                f"{role} has rows of the shapes {sorted(shapes)[0]} and {sorted(shapes)[1]}"
            )
        joined[role] = np.concatenate([part[role] for part in held])
    return joined


def vectors_of(group) -> tuple[list[str], list[str]]:
    """The names of vectors in a group of observations, and of everything else."""
    import h5py

    vectors, others = [], []
    for name in sorted(group):
        item = group.get(name)
        numbers = isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf"
        (vectors if numbers and len(item.shape or ()) in (1, 2) else others).append(name)
    return vectors, others


def _chosen(requested: str | list[str] | None, vectors: list[str], others: list[str]) -> list[str]:
    if requested is None:
        if not vectors:
            raise DataError(
                f"no vector is among the observations ({', '.join(others)}): say which of them to "
                "take with columns={'observations': ['NAME', …]}"
            )
        return vectors
    names = [requested] if isinstance(requested, str) else list(requested)
    names = [name.rpartition("/")[2] for name in names]
    for name in names:
        if name not in vectors + others:
            raise DataError(
                f"there is no observation '{name}'; there are {', '.join(vectors + others)}"
            )
    return names


def _plays(group, role: str) -> bool:
    import h5py

    return any(isinstance(group.get(name), h5py.Dataset) for name in ROLES[role])


def _environment(file) -> str | None:
    """The task that robomimic's `env_args` name."""
    import h5py

    data = file.get("data")
    text = data.attrs.get("env_args") if isinstance(data, h5py.Group) else None
    try:
        arguments = json_text.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
    name = arguments.get("env_name") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) else None


def _natural(name: str) -> list[Any]:
    return [int(p) if p.isdigit() else p for p in re.split(r"([0-9]{1,12})", name)]
