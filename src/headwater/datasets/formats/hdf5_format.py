"""D4RL's HDF5 files: one array per column, episodes laid end to end."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.core.stored_size import refuse_beyond
from headwater.datasets.columns import Chunk, Mapping, resolve, stored_options
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.hdf5_walk import survives

_PREFIX = "headwater_"


def open_hdf5(path: Path, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of `rows` (all if `None`).

    Raises `DataError` for a damaged file, a missing column or data kept outside of the file.
    """
    # These use what is below.
    from headwater.datasets.formats.hdf5_episodes import (
        groups_of_episodes,
        is_numbered,
        open_groups,
        open_numbered,
    )

    with open_file(path) as file:
        try:
            names = [name for name in file if _is_array(_item(file, name))]
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
        reading = resolve(names, mapping)
        try:
            stored = _stored(file)
        except DataError:
            raise
        except Exception as error:  # The library raises whatever a damaged file makes it trip on.
            raise damaged(error) from None
    return {**stored, "reading": reading}, _chunks(path, reading.columns, rows)


def open_file(path: Path) -> Any:
    """An open HDF5 file with nothing in it that points outside. Raises `DataError`."""
    import h5py

    if not survives(path):
        raise DataError(
            "this HDF5 file is corrupt in a way that the HDF5 library does not survive: copy or "
            "download it again"
        )
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError(f"it cannot be read ({error.strerror}): check its permissions") from None
    except (OSError, RuntimeError) as error:
        raise damaged(error) from None
    try:
        refuse_beyond(_refuse_outside(file, "", set()), path.stat().st_size)
    except DataError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise damaged(error) from None
    return file


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
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for name, value in stored_options(dataset).items():
            file.attrs[_PREFIX + name] = value
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


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


def read_columns(file, columns: list[str], rows: slice) -> np.ndarray:
    """These rows of the arrays of those names, side by side.

    Raises `DataError` for what cannot be read or holds no numbers.
    """
    try:
        parts = [np.asarray(file[name][rows]) for name in columns]
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        if "filter" in str(error) and "not registered" in str(error):
            raise DataError(
                f"column '{columns[0]}' is compressed by a filter that is not installed "
                f"({_reason(error)}): write the file again with gzip or without compression, as "
                "`h5repack -f NONE` does"
            ) from None
        raise DataError(
            f"column '{columns[0]}' cannot be read ({_reason(error)}): the file is truncated or "
            "corrupt; copy or download it again"
        ) from None
    for name, part in zip(columns, parts):
        if part.dtype.kind not in "biuf":
            raise DataError(f"column '{name}' has type {part.dtype}: only numbers can be read")
    return parts[0] if len(parts) == 1 else np.column_stack(parts)


def _item(file, name: str):
    try:
        return file[name]
    except (KeyError, OSError, RuntimeError):
        raise DataError(
            f"'{name}' leads to nothing in the file: remove it, or write the file again"
        ) from None


def _is_array(item) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset) and len(item.shape or ()) > 0


def _refuse_outside(group, prefix: str, visited: set[int]) -> int:
    """The bytes that all arrays claim to hold. Raises `DataError` for links that lead outside."""
    import h5py

    claimed = 0

    # Defined in the compiled part, where a type checker does not look.
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    for name in group:
        link = group.get(name, getlink=True)
        where = f"{prefix}{name}"
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"'{where}' is a link to another file ({link.filename}), which is not followed: "
                "write a file that holds the data itself"
            )
        if not isinstance(link, h5py.HardLink):
            continue  # A link inside the file leads to what is visited by its own name.
        item = group[name]
        address = h5o.get_info(item.id).addr
        if address in visited:
            continue
        visited.add(address)
        if isinstance(item, h5py.Group):
            claimed += _refuse_outside(item, where + "/", visited)
        elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise DataError(
                f"'{where}' keeps its data in other files, which are not opened: write a file that "
                "holds the data itself"
            )
        elif isinstance(item, h5py.Dataset):
            claimed += math.prod(item.shape or ()) * item.id.get_type().get_size()
    return claimed


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


def damaged(error: Exception) -> DataError:
    """What to say of a file that the library trips on."""
    return DataError(
        f"this HDF5 file is truncated or corrupt ({_reason(error)}): copy or download it again"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


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
