"""What a format of logs is, and all that there are: one file of `formats/` for each."""

import abc
import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.datasets.columns.roles import Chunk, Mapping
from headwater.datasets.dataset import Dataset

_ROOM = Path(__file__).parent / "formats"

Opened = tuple[dict[str, Any], Iterator[Chunk]] | Dataset
"""What is stored beside the columns (with what `resolve` says of them as `reading`), and the
columns in chunks; or the dataset, where the format holds one as it is."""


class AbstractFormat(abc.ABC):
    """A format that logs are kept in.

    A file of `formats/` lists its formats in `FORMATS`, and nothing else names them: reading,
    writing, the command line and the messages find them there.

    **Arguments:** `title`: what it is called in messages; `variants`: the names under which it is
    written (`--format`), none if it is only read; `suffixes`: of the files that are written in its
    first variant if nothing else is said, and whose content must be of this format; `sign`: the
    file by which a directory is recognised, empty for formats of files; `episode_bytes`: what an
    episode costs beyond its rows.
    """

    title: str
    variants: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    sign: str = ""
    episode_bytes: int = 0

    @property
    def directory(self) -> bool:
        """Whether it is a directory and not a file."""
        return bool(self.sign)

    @abc.abstractmethod
    def recognises(self, place: Path, head: bytes) -> bool:
        """Whether this is what lies at `place`.

        **Arguments:** `place`: a file, or a directory; `head`: the first bytes of the file, none of
        a directory.
        """

    @abc.abstractmethod
    def open(self, place: Path, mapping: Mapping | None, rows: int | None) -> Opened:
        """The data at `place`.

        **Arguments:** `mapping`: which column plays which role, if the user says so; `rows`: of a
        chunk, all if `None`. Raises `DataError` for what is damaged or cannot be used.
        """

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        """Writes `dataset` to `place`, where nothing is yet.

        **Arguments:** `variant`: one of `variants`; `name`: what the dataset is called, in formats
        that keep a name. Raises `DataError` if the format cannot hold the data.
        """
        raise TypeError(f"{self.title} is not written")


@functools.cache
def all_formats() -> tuple[AbstractFormat, ...]:
    """Every format, in the order of the files that define them."""
    names = sorted(path.stem for path in _ROOM.glob("*.py"))
    modules = [importlib.import_module(f"headwater.datasets.formats.{name}") for name in names]
    return tuple(format for module in modules for format in getattr(module, "FORMATS", ()))


def format_of(place: Path, head: bytes) -> AbstractFormat | None:
    """The format of what lies at `place`, if there is one that recognises it."""
    return next((f for f in all_formats() if f.recognises(place, head)), None)


def is_dataset_directory(place: Path) -> bool:
    """Whether a directory is a dataset in one of the formats."""
    return place.is_dir() and format_of(place, b"") is not None


def variants() -> dict[str, AbstractFormat]:
    """The formats that can be written, by the names under which they are."""
    return {variant: format for format in all_formats() for variant in format.variants}
