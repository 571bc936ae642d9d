"""NumPy archives (`.npz`), directories of `.npy` and arrays of records: never a pickle."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError, HeadwaterError
from headwater.core.stored_size import refuse_beyond, require_regular
from headwater.datasets.columns.options import stored_options
from headwater.datasets.columns.roles import ROLES, Chunk, Mapping, Reading, resolve
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.directory_format import is_column_directory
from headwater.datasets.formats.padded import (
    SPLITS,
    is_length,
    is_padded,
    is_split,
    split,
    unrolled,
)
from headwater.datasets.metadata import remark_of_format

_OPTIONS = (
    "action_low",
    "action_high",
    "action_count",
    "action_labels",
    "discrete",
    "horizon",
    "metadata",
)


def open_archive(path: Path, mapping: Mapping | None):
    """What is stored beside the columns, and the columns as one chunk.

    Raises `DataError` for a damaged file, a missing column or Python objects instead of numbers.
    """
    with (
        _damage_reported("this .npz file"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        unpacked = sum(member.file_size for member in archive.zip.infolist())
        refuse_beyond(unpacked, path.stat().st_size)
        return _opened(archive, list(archive.files), mapping)


def open_arrays(path: Path, mapping: Mapping | None):
    """The same of a directory with an `.npy` file for each column.

    Raises `DataError` as `open_archive` does.
    """
    files = {file.stem: file for file in sorted(path.glob("*.npy"))}
    with _damage_reported("a file in this directory"):
        for file in files.values():
            require_regular(file)
        return _opened(_Arrays(files), list(files), mapping)


def open_records(path: Path, mapping: Mapping | None):
    """The same of an array of records, whose fields are the columns.

    Raises `DataError` as `open_archive` does, and for an array without fields.
    """
    with _damage_reported("this .npy file"):
        try:
            array = np.load(path, allow_pickle=False)
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise _objects(path.name) from None
            raise
        if array.dtype.names is None or array.ndim != 1:
            raise DataError(
                f"this is a single array of shape {list(array.shape)}, and a log needs several: "
                "save them together with np.savez('log.npz', observations=…, actions=…, "
                "rewards=…, terminals=…), or as files of these names in a directory of their own"
            )
        return _opened(array, list(array.dtype.names), mapping)


class _Arrays:
    """The files of a directory by name, as an archive has its arrays."""

    def __init__(self, files: dict[str, Path]):
        self.places = files

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self.places[name], allow_pickle=False)


@contextlib.contextmanager
def _damage_reported(what: str) -> Iterator[None]:
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:  # Whatever a damaged file makes the libraries trip on.
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{what} is truncated or corrupt ({reason}): copy or download it again"
        ) from None


def _opened(archive: Any, files: list[str], mapping: Mapping | None):
    stored = _stored(archive, files)
    reading = resolve([name for name in files if name not in stored], mapping)
    chunk: Chunk = {role: _read(archive, names) for role, names in reading.columns.items()}
    if SPLITS in reading.unused and is_split(chunk, splits := _read(archive, [SPLITS])):
        chunk, note = split(chunk, splits)
        reading = _without_unused(reading, [SPLITS])
        stored["metadata"] = remark_of_format(stored.get("metadata"), note)
    elif is_padded(chunk):
        lengths = [name for name in reading.unused if is_length(name)]
        masks = [name for name in reading.columns.get("continues", ()) if is_length(name)]
        if masks and "continues" not in reading.declared:
            # A mask of padded episodes says which steps count, not where something follows.
            lengths += masks
            del chunk["continues"]
            others = {role: n for role, n in reading.columns.items() if role != "continues"}
            reading = reading._replace(columns=others)
        chunk, note = unrolled(chunk, {name: _read(archive, [name]) for name in lengths})
        reading = _without_unused(reading, lengths)
        stored["metadata"] = remark_of_format(stored.get("metadata"), note)
    return {**stored, "reading": reading}, iter([chunk])


def _without_unused(reading: Reading, used: list[str]) -> Reading:
    """The reading where the columns `used` say how long episodes are."""
    unused = tuple(name for name in reading.unused if name not in used)
    looks = {name: what for name, what in reading.looks.items() if name not in used}
    return reading._replace(unused=unused, looks=looks)


def write_archive(dataset: Dataset, path: Path) -> None:
    """Writes the columns, with actions in the user's units, and the rest as JSON text."""
    arrays = {
        "observations": dataset.observations,
        "actions": dataset.raw_actions(),
        "rewards": dataset.rewards,
        "terminals": dataset.terminals,
        "truncations": dataset.truncations,
        "next_observations": dataset.next_observations,
    }
    arrays |= dataset.beside()
    extra = {name: np.asarray(text) for name, text in stored_options(dataset).items()}
    with path.open("wb") as file:
        np.savez(file, **{**arrays, **extra})  # pyright: ignore[reportArgumentType]


def _stored(archive, files: list[str]) -> dict[str, Any]:
    stored: dict[str, Any] = {}
    for name in _OPTIONS:
        if name not in files:
            continue
        try:
            value = archive[name]
        except ValueError:
            raise _objects(name) from None
        if value.dtype.kind == "U" and value.ndim == 0:
            try:
                stored[name] = json_text.parse(str(value))
            except ValueError:
                raise DataError(f"'{name}' is no JSON text: remove or correct it") from None
        elif value.dtype.kind in "biuf":
            stored[name] = value.tolist()
        else:
            raise DataError(f"'{name}' is neither numbers nor JSON text: remove or correct it")
    return stored


def _read(archive, columns: list[str]) -> np.ndarray:
    parts = []
    for name in columns:
        try:
            part = archive[name]
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise _objects(name) from None
            raise
        if part.dtype.kind not in "biuf":
            raise DataError(
                f"array '{name}' has type {part.dtype}, which is not a number: convert it "
                "to float32 "
                "or int32"
            )
        if part.ndim == 0:
            raise DataError(f"array '{name}' is a single number: give one row per step")
        parts.append(part)
    if len({part.shape[0] for part in parts}) > 1:
        raise DataError(
            f"arrays '{columns[0]}' to '{columns[-1]}' have different lengths: all columns must "
            "have the same length"
        )
    return parts[0] if len(parts) == 1 else np.column_stack(parts)


def _objects(name: str) -> DataError:
    return DataError(
        f"array '{name}' holds Python objects (a pickle), which are never loaded because they can "
        "run code: save it as a plain array of numbers, ragged episodes laid end to end"
    )


class _NumPyArchive(AbstractFormat):
    title = ".npz"
    variants = ("npz",)
    suffixes = (".npz",)

    def recognises(self, place: Path, head: bytes) -> bool:
        return head.startswith(b"PK")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_archive(place, mapping)

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        write_archive(dataset, place)


class _NumPyDirectory(AbstractFormat):
    title = "directory of .npy files"
    sign = "observations.npy"

    def recognises(self, place: Path, head: bytes) -> bool:
        if not place.is_dir() or is_column_directory(place):
            return False
        names = {file.stem.lower() for file in place.glob("*.npy")}
        return bool(names & set(ROLES["observations"])) and bool(names & set(ROLES["actions"]))

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_arrays(place, mapping)


class _NumPyRecords(AbstractFormat):
    title = ".npy of records"
    suffixes = (".npy",)

    def recognises(self, place: Path, head: bytes) -> bool:
        return head.startswith(b"\x93NUMPY")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_records(place, mapping)


FORMATS = (_NumPyArchive(), _NumPyDirectory(), _NumPyRecords())
