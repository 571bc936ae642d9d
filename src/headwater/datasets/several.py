"""Several files as one log: a list, a pattern, or a directory of them."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError
from headwater.core.stored_size import require_regular
from headwater.datasets.columns.options import Options
from headwater.datasets.columns.roles import Chunk
from headwater.datasets.episodes.ends import RECORDS
from headwater.datasets.metadata import ACTION_NAMES, remark_of_format

_SUFFIXES = (".parquet", ".arrow", ".feather", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".npz")
_SUFFIXES += (".hdf5", ".h5", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_BESIDE = (".json", ".json.gz")
"""Also of what describes data beside it, so that these are data only where nothing else is."""
_MOST = 1_000_000

Opened = tuple[Options, Iterator[Chunk]]


def files_of_directory(place: Path) -> list[Path]:
    """The data files in and below a directory, in the order of the numbers in their names.

    Raises `DataError` for files of several kinds, and for links that lead out of the directory.
    """
    found: dict[str, list[Path]] = {}
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        for name in names:
            known = (*_SUFFIXES, *_BESIDE)
            suffix = next((s for s in known if name.lower().endswith(s)), None)
            if suffix is not None and not name.startswith((".", "_")):
                found.setdefault(suffix, []).append(Path(folder) / name)
        if sum(map(len, found.values())) > _MOST:
            raise DataError(f"it holds more than {_MOST:,} files: join them into larger ones")
    if len(found) > 1:
        found = {suffix: files for suffix, files in found.items() if suffix not in _BESIDE} or found
    if len(found) > 1:
        held = " and ".join(f"{len(files):,} {suffix}" for suffix, files in sorted(found.items()))
        raise DataError(
            f"this directory holds {held} files, which are different kinds: say which with a "
            f"pattern such as '{place}/*{sorted(found)[0]}'"
        )
    files = sorted(next(iter(found.values()), []), key=natural)
    inside = place.resolve()
    # The cache of the Hugging Face hub keeps contents beside the directories that name them.
    blobs = inside.parent.parent / "blobs" if inside.parent.name == "snapshots" else inside
    for file in files:
        try:
            target = file.resolve()
        except (OSError, RuntimeError):
            raise DataError(f"{file} is a link that leads nowhere: remove it") from None
        if inside not in target.parents and blobs not in target.parents:
            raise DataError(f"{file} is a link to another place, which is not followed: copy it")
    return files


def files_of_pattern(path: str | Path) -> list[Path]:
    """What a pattern such as `logs/*.parquet` stands for; nothing, if it is none."""
    text = str(Path(path).expanduser())
    if not any(character in text for character in "*?["):
        return []
    import glob

    return sorted(map(Path, glob.glob(text, recursive=True)), key=natural)


def natural(path: Path) -> list[Any]:
    """A key by which `part-2` comes before `part-10`."""
    pieces = re.split(r"([0-9]{1,18})", path.as_posix())
    return [int(piece) if piece.isdecimal() else piece for piece in pieces]


def open_several(
    places: Sequence[Path], open_one: Callable[[Path], Opened]
) -> tuple[Options, Iterator[Chunk]]:
    """The options that all files share, and the chunks of one after the other.

    A record ends with its file, unless the next file goes on with it: with the same number of an
    episode and a higher count of steps, or with the observation that was to follow.

    Raises `DataError`, with the file, for files that do not fit together, and if it is left open
    whether an episode goes on.
    """
    for place in places:
        require_regular(place) if not place.is_dir() else None
    options, first = _opened(places[0], open_one)
    note = f"{len(places):,} files were read, in the order of the numbers in their names"
    metadata = remark_of_format(options.metadata, note)
    return options._replace(metadata=metadata), _chain(places, options, first, open_one)


def _opened(place: Path, open_one: Callable[[Path], Opened]) -> Opened:
    try:
        options, chunks = open_one(place)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    return options, _named(place, chunks)


def _named(place: Path, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    try:
        yield from chunks
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _chain(
    places: Sequence[Path], options: Options, first: Iterator[Chunk], open_one: Callable
) -> Iterator[Chunk]:
    record, last = 0, None
    roles: set[str] = set()
    numbers = _Numbers()
    for position, place in enumerate(places):
        chunks = first
        if position:
            others, chunks = _opened(place, open_one)
            _refuse_other(place, others, places[0], options)
        fresh = True
        for chunk in chunks:
            if not len(chunk["observations"]):
                continue
            roles = roles or set(chunk)
            if set(chunk) != roles:
                odd = sorted(set(chunk) ^ roles)[0]
                raise DataError(f"{place} and {places[0]} differ in whether they have {odd}")
            goes_on = fresh and last is not None and _goes_on(last, chunk, places, position)
            if fresh and position and not goes_on:
                record += 1
            last = {role: values[-1:] for role, values in chunk.items()}
            inner = chunk.get(RECORDS)
            if inner is None:
                given = np.full(len(chunk["observations"]), record)
            else:
                given = record + np.cumsum(np.append(0, inner[1:] != inner[:-1]))
                record = int(given[-1])
            chunk = dict(chunk)
            if "episodes" in chunk:
                chunk["episodes"] = numbers.renumbered(chunk["episodes"], place, fresh, goes_on)
            chunk[RECORDS] = given
            fresh = False
            yield chunk


class _Numbers:
    """Numbers of episodes that are told apart from those of other files."""

    def __init__(self):
        self.count = -1
        self.seen: dict[Any, Path] = {}
        self.first: Any = None
        self.last: Any = None

    def renumbered(self, given: np.ndarray, place: Path, fresh: bool, goes_on: bool) -> np.ndarray:
        """The chunk's numbers, counted through all files."""
        values = given.reshape(-1)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise DataError(f"{place}: episodes holds nan at row {np.argmax(np.isnan(values))}")
        change = np.append(True, values[1:] != values[:-1])
        heads = values[change].tolist()
        if self.first is None:
            self.first = heads[0]
        elif fresh and heads[0] == self.first and not goes_on:
            # Every file numbers its own episodes from the same number on.
            self.seen = {}
        carried = goes_on if fresh else heads[0] == self.last
        for head in heads[1:] if carried else heads:
            if head in self.seen:
                where = self.seen[head]
                raise DataError(
                    f"{place}: episode {head} begins again, after it was in {where}: sort the rows "
                    "of all files by episode and step"
                )
            self.seen[head] = place
        if carried:
            change[0] = False
        numbers = self.count + np.cumsum(change)
        self.count, self.last = int(numbers[-1]), heads[-1]
        return numbers


def _goes_on(last: Chunk, chunk: Chunk, places: Sequence[Path], position: int) -> bool:
    """Whether the next file begins in the middle of the episode with which the last one stopped."""
    for role in ("terminals", "truncations", "dones", "ends"):
        if role in last and np.any(last[role] != 0):
            return False
    if "starts" in chunk:
        return not np.any(chunk["starts"][:1] != 0)
    if "episodes" in chunk and last["episodes"].reshape(-1)[0] != chunk["episodes"].reshape(-1)[0]:
        return False
    if "steps" in chunk and chunk["steps"].dtype.kind in "iuf":
        return bool(chunk["steps"].reshape(-1)[0] > last["steps"].reshape(-1)[0])
    if "next_observations" in chunk:
        return bool(np.array_equal(last["next_observations"][0], chunk["observations"][0]))
    if "episodes" in chunk:
        number = last["episodes"].reshape(-1)[0]
        raise DataError(
            f"{places[position - 1]} ends and {places[position]} begins with episode {number}, and "
            "nothing says whether it goes on: number the episodes through all files, add a column "
            "'step' that counts the steps of each, or join the files into one"
        )
    return False


def _refuse_other(place: Path, options: Options, first: Path, other: Options) -> None:
    """Raises `DataError` for options that are stored with one file and not with the other."""
    for name, value in other._asdict().items():
        if name not in ("metadata", "reading", "columns") and options._asdict()[name] != value:
            raise DataError(
                f"{place} says {name}={options._asdict()[name]} but {first} says {value}: files "
                "that are read together must agree"
            )
    words, others = ((o.metadata or {}).get(ACTION_NAMES) for o in (options, other))
    if words != others:
        odd = sorted({str(word) for word in (words or [])} ^ {str(word) for word in (others or [])})
        raise DataError(
            f"the actions of {place} and of {first} are not the same words (only one of them has "
            f"'{odd[0] if odd else 'them in this order'}'), so their numbers would not mean the "
            "same: join the files into one table, or number the actions alike in all of them"
        )
