"""Writing logged experience: whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.datasets.columns.options import Options
from headwater.datasets.dataset import COLUMNS, Dataset
from headwater.datasets.format import AbstractFormat, all_formats, is_dataset_directory, variants
from headwater.datasets.formats.directory_format import write_directory
from headwater.datasets.metadata import summed_counts
from headwater.datasets.read import load, load_blocks, locate


def write(
    dataset: Dataset,
    path: str | Path,
    format: str | None = None,
    *,
    overwrite: bool = False,
    name: str | None = None,
) -> Path:
    """Writes `dataset` to `path`, under a temporary name first, and returns the path.

    Actions are written in the user's units, except into a column directory, which is for replay
    from disk and holds them canonical.

    **Arguments:** `format`: a name of `headwater.datasets.format.variants` (default: by the suffix;
    a name without one becomes a column directory); `overwrite`: replace what is there; `name`: what
    Minari calls the dataset (default: the directory's name with a version).

    Raises `DataError` if the path is taken, the disk is full or the format cannot hold the data.
    """
    place = Path(path).expanduser()
    variant, kept = _format(path, format)
    _refuse_taken(place, overwrite)
    _require_space(place, dataset, kept)
    with _atomic(place, overwrite) as temporary:
        kept.write(dataset, temporary, variant=variant, name=name or place.name)
    return place


def convert(
    source: str | Path,
    target: str | Path,
    format: str | None = None,
    *,
    overwrite: bool = False,
    options: dict[str, Any] | None = None,
    rows: int = 65_536,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Reads `source`, writes it to `target` and returns that path.

    To a column directory the data goes in blocks of whole episodes of about `rows` rows, so that
    it may be larger than memory.

    **Arguments:** `format`, `overwrite`: see `write`; `options`: see `load`; `tell`: is given the
    metadata of what was read. Raises `DataError` if the source cannot be used or the target cannot
    be written.
    """
    place = Path(target).expanduser()
    if place.exists() and place.resolve() == locate(source).resolve():
        raise DataError(f"{place} is both source and target: give another target")
    # Where rows are dropped, a block may have none left.
    drops = (options or {}).get("missing_actions") == "drop"
    if drops or _format(target, format)[0] != "columns":
        _refuse_taken(place, overwrite)
        data = load(source, **(options or {}))
        written = write(data, target, format, overwrite=overwrite)
        if tell is not None:
            tell(data.metadata)
        return written
    seen: list[dict[str, Any]] = []
    with _atomic(place, overwrite) as temporary:
        temporary.mkdir()
        blocks = _noted(load_blocks(source, rows, Options(**(options or {}))), seen)
        write_directory(blocks, temporary)
    if tell is not None:
        tell({**seen[0], **summed_counts(seen)})
    return place


def _noted(blocks: Iterator[Dataset], seen: list[dict[str, Any]]) -> Iterator[Dataset]:
    """The same blocks, of which the metadata are noted on the way."""
    for block in blocks:
        seen.append(block.metadata)
        yield block


def _format(path: str | Path, format: str | None) -> tuple[str, AbstractFormat]:
    """The name under which it is written, and the format."""
    known = variants()
    if format is not None:
        if format not in known:
            raise SpecificationError(nearest(format, known, "format"))
        return format, known[format]
    suffix = Path(path).suffix.lower()
    for found in all_formats():
        if found.variants and suffix in found.suffixes:
            return found.variants[0], found
    raise SpecificationError(
        f"'{path}' does not say in which format to write: give one of {', '.join(known)}"
    )


def _refuse_taken(place: Path, overwrite: bool) -> None:
    if os.path.lexists(place) and not overwrite:
        raise DataError(
            f"{place} exists already and is left as it is: give another path, or "
            "overwrite=True (--overwrite)"
        )
    if place.is_dir() and not is_dataset_directory(place):
        raise DataError(
            f"{place} is a directory but no dataset, and is not overwritten: give another path"
        )


def _require_space(place: Path, dataset: Dataset, kept: AbstractFormat) -> None:
    if not place.parent.is_dir():
        return
    needed = sum(getattr(dataset, name).nbytes for name in COLUMNS)
    needed += kept.episode_bytes * dataset.episodes
    free = shutil.disk_usage(place.parent).free
    if free < needed:
        raise DataError(
            f"the disk is full: {place} needs up to {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} "
            "MB are free; make room or give a path on another disk"
        )


@contextlib.contextmanager
def _atomic(place: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary name next to `place`; what is written there takes its place at the end."""
    _refuse_taken(place, overwrite)
    if not place.parent.is_dir():
        raise DataError(f"the directory {place.parent} does not exist: create it first")
    if not place.name:
        raise DataError(f"{place} is no name that data could be written under: give another path")
    temporary = place.with_name(f".{place.name}.{os.getpid()}.partial")
    replaced = place.with_name(f".{place.name}.{os.getpid()}.replaced")
    try:
        _remove(temporary)
        yield temporary
        _synchronise(temporary)
        _refuse_taken(place, overwrite)
        if place.is_dir() or (temporary.is_dir() and place.exists()):
            # A directory cannot be renamed over another: the old one steps aside first.
            os.rename(place, replaced)
            try:
                os.rename(temporary, place)
            except BaseException:
                os.rename(replaced, place)
                raise
            _remove(replaced)
        else:
            os.replace(temporary, place)
        _synchronise_one(place.parent)
    except (OSError, RuntimeError) as error:
        # The libraries that write some of the formats put the reason into words only.
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise DataError(
                f"the disk is full: {place} was not written, and nothing is left of the attempt; "
                "make room or give a path on another disk"
            ) from None
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{place} cannot be written ({reason})") from None
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    if path.is_dir():
        for item in path.rglob("*"):
            _synchronise_one(item)
    _synchronise_one(path)


def _synchronise_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
