"""D4RL's HDF5 files: one array per column, episodes laid end to end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.datasets.columns.options import stored_options
from headwater.datasets.columns.roles import ROLES, Chunk, Mapping, resolve
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.hdf5_episodes import (
    groups_of_episodes,
    is_numbered,
    open_groups,
    open_numbered,
    vectors_of,
)
from headwater.datasets.formats.hdf5_file import damaged, is_array, item_of, open_file, read_columns
from headwater.datasets.metadata import remark_of_format

_PREFIX = "headwater_"


def open_hdf5(path: Path, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of `rows` (all if `None`).

    Raises `DataError` for a damaged file, a missing column or data kept outside of the file.
    """
    with open_file(path) as file:
        try:
            names = [name for name in file if is_array(item_of(file, name))]
        except DataError:
            raise
        except Exception as error:  # As below.
            raise damaged(error) from None
        if not names and any(name.startswith("episode_") for name in file):
            raise DataError(
                "this is the data file of a Minari dataset, whose spaces are in metadata.json next "
                "to it: load the directory, not the file"
            )
        if is_numbered(names):
            return open_numbered(path, names, mapping, rows)
        if groups_of_episodes(file):
            return open_groups(path, mapping, rows)
        try:
            parts, left = _parts_of_observations(file, names)
        except Exception as error:  # As below.
            raise damaged(error) from None
        reading = resolve([*names, *parts], mapping)
        try:
            stored = _stored(file)
            if left:
                note = f"what is no vector is left out: {', '.join(left)}"
                stored["metadata"] = remark_of_format(stored.get("metadata"), note)
        except DataError:
            raise
        except Exception as error:  # The library raises whatever a damaged file makes it trip on.
            raise damaged(error) from None
    return {**stored, "reading": reading}, _chunks(path, reading.columns, rows)


def write_hdf5(dataset: Dataset, path: Path) -> None:
    """Writes D4RL's layout, with actions in the user's units and explicit next observations."""
    import h5py

    # Built in memory: the library does not survive a disk that fills up while it writes.
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        arrays = {
            "observations": dataset.observations,
            "actions": dataset.raw_actions(),
            "rewards": dataset.rewards,
            "next_observations": dataset.next_observations,
            "terminals": dataset.terminals,
            "timeouts": dataset.truncations,
        }
        arrays |= dataset.beside()
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for name, value in stored_options(dataset).items():
            file.attrs[_PREFIX + name] = value
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def _parts_of_observations(file, names: list[str]) -> tuple[list[str], list[str]]:
    """The vectors in groups that are called as observations are, and what else is in them."""
    import h5py

    vectors, others = [], []
    for role in ("observations", "next_observations"):
        if any(name in ROLES[role] for name in names):
            continue
        for group in ROLES[role]:
            if isinstance(file.get(group), h5py.Group):
                found, rest = vectors_of(file[group])
                vectors += [f"{group}/{name}" for name in found]
                others += [f"{group}/{name}" for name in rest]
    return vectors, others


def _chunks(path: Path, roles: dict[str, list[str]], rows: int | None) -> Iterator[Chunk]:
    with open_file(path) as file:
        sizes = {name: file[name].shape[0] for columns in roles.values() for name in columns}
        longest = max(sizes.values())
        different = [name for name, size in sizes.items() if size != longest]
        if different:
            name = different[0]
            others = next(other for other, size in sizes.items() if size == longest)
            raise DataError(
                f"column '{name}' has {sizes[name]:,} rows but '{others}' has {longest:,}: all "
                "columns must have the same length"
            )
        step = longest if rows is None else rows
        for begin in range(0, longest, max(step, 1)):
            yield {
                role: read_columns(file, columns, slice(begin, begin + step))
                for role, columns in roles.items()
            }


def _stored(file) -> dict[str, Any]:
    import h5py

    stored: dict[str, Any] = {}
    for name, text in file.attrs.items():
        if name.startswith(_PREFIX):
            try:
                stored[name.removeprefix(_PREFIX)] = json_text.parse(text)
            except (ValueError, TypeError):
                raise DataError(f"attribute '{name}' is no JSON text: remove it") from None
    # d3rlpy 1 says whether actions are numbers of a finite set.
    kind = file.get("discrete_action")
    if isinstance(kind, h5py.Dataset) and kind.shape == () and kind.dtype.kind in "bui":
        stored.setdefault("discrete", bool(kind[()]))
    # D4RL keeps what it knows of the behaviour policy in a group of this name.
    found: dict[str, Any] = {}
    group = file.get("metadata")
    if isinstance(group, h5py.Group):
        for name, item in group.items():
            if isinstance(item, h5py.Dataset) and item.shape == ():
                value = item[()]
                value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                value = value.item() if isinstance(value, np.generic) else value
                if isinstance(value, str | int | float):
                    found[name] = value
    if found and isinstance(stored.get("metadata", {}), dict):
        stored["metadata"] = {**found, **stored.get("metadata", {})}
    return stored


class _D4RL(AbstractFormat):
    title = "HDF5"
    variants = ("d4rl",)
    suffixes = (".hdf5", ".h5")

    def recognises(self, place: Path, head: bytes) -> bool:
        return head.startswith(b"\x89HDF\r\n\x1a\n")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_hdf5(place, mapping, rows)

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        write_hdf5(dataset, place)


FORMATS = (_D4RL(),)
