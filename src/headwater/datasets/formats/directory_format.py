"""The column directory: one `.npy` file per column, which can be mapped instead of read."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.core.stored_size import require_regular
from headwater.datasets.columns.options import lasting
from headwater.datasets.columns.roles import Mapping
from headwater.datasets.dataset import COLUMNS, OPTIONAL_COLUMNS, Dataset, check_columns
from headwater.datasets.format import AbstractFormat
from headwater.datasets.metadata import summed_counts

_DESCRIPTION = "dataset.json"
_FORMAT = "headwater-columns-1"
_TYPES = {
    "observations": np.float32,
    "next_observations": np.float32,
    "rewards": np.float32,
    "terminals": np.bool_,
    "truncations": np.bool_,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """A dataset that stays on disk.

    **Arguments:** `columns`: memory-mapped arrays by the names of the fields of `Dataset`, with
    canonical actions; `episode_starts`: in memory; `spaces`, `metadata`: as in `Dataset`;
    `log_propensities`, `action_confidence`: mapped, `None` where there is none.
    """

    columns: dict[str, np.ndarray]
    episode_starts: np.ndarray
    spaces: Spaces
    metadata: dict[str, Any]
    log_propensities: np.ndarray | None = None
    action_confidence: np.ndarray | None = None

    def fingerprint(self) -> str:
        """A hash of boundaries, spaces and statistics: enough to notice other data, unread."""
        total = hashlib.blake2b(self.episode_starts.tobytes(), digest_size=16)
        total.update(json.dumps(self.spaces.to_json()).encode())
        return total.hexdigest()

    @property
    def size(self) -> int:
        """Number of transitions."""
        return self.columns["rewards"].shape[0]


def is_column_directory(path: Path) -> bool:
    """Whether `path` is such a directory."""
    return (path / _DESCRIPTION).is_file()


def open_columns(path: Path | str) -> Columns:
    """The columns of a column directory, mapped into memory rather than read.

    Raises `DataError` if the directory is incomplete or its files do not fit together.
    """
    path = Path(path)
    description = _description(path)
    columns = {name: _open(path, name, description["rows"]) for name in COLUMNS}
    starts = np.array(_open(path, "episode_starts", description["episodes"] + 1))
    if starts.dtype != np.int64 or starts.ndim != 1:
        raise DataError(f"{path / 'episode_starts.npy'}: the boundaries are no whole numbers")
    if starts[0] != 0 or starts[-1] != description["rows"]:
        raise DataError(f"{path / 'episode_starts.npy'}: the boundaries do not fit the columns")
    if np.any(np.diff(starts) < 1):
        raise DataError(f"{path / 'episode_starts.npy'}: the boundaries do not fit the columns")
    try:
        spaces = Spaces.from_json(description["spaces"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path / _DESCRIPTION}: the spaces are incomplete ({error})") from None
    types = _TYPES | {"actions": np.int32 if spaces.discrete else np.float32}
    for name, column in columns.items():
        if column.dtype != types[name]:
            raise DataError(
                f"{path / name}.npy holds {column.dtype} but {np.dtype(types[name])} is needed: "
                "write the directory again"
            )
    widths = {"observations": spaces.observation_size, "next_observations": spaces.observation_size}
    if not spaces.discrete:
        widths["actions"] = spaces.action_size
    for name, column in columns.items():
        expected = (description["rows"], widths[name]) if name in widths else (column.shape[0],)
        if column.shape != expected:
            raise DataError(
                f"{path / name}.npy has shape {column.shape} but {expected} is needed: write the "
                "directory again"
            )
    optional = {
        name: _open(path, name, description["rows"])
        for name in OPTIONAL_COLUMNS
        if description.get(name)
    }
    for name, column in optional.items():
        if column.dtype != np.float32 or column.ndim != 1:
            raise DataError(
                f"{path / name}.npy holds {column.dtype} of shape {column.shape} but one float32 "
                "for each row is needed: write the directory again"
            )
    return Columns(columns, starts, spaces, lasting(description["metadata"]), **optional)


def read_directory(path: Path) -> Dataset:
    """The dataset in a column directory, read into memory, with every value checked.

    Raises `DataError` as `open_columns` does, and for numbers that are not finite, actions outside
    of their bounds, and episodes whose ends are marked elsewhere.
    """
    opened = open_columns(path)
    columns = {name: np.array(column) for name, column in opened.columns.items()}
    check_columns(columns, opened.episode_starts, opened.spaces)
    optional = {
        name: np.array(column)
        for name in OPTIONAL_COLUMNS
        if (column := getattr(opened, name)) is not None
    }
    for name, column in optional.items():
        if not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column)))
            raise DataError(
                f"{name} holds {column[row]} at row {row}: every number must be finite; write the "
                "directory again"
            )
    doubtful = optional.get("action_confidence")
    if doubtful is not None and (doubtful.min() < 0 or doubtful.max() > 1):
        raise DataError("action_confidence holds a value outside 0 to 1: write the data again")
    return Dataset(
        **columns,
        episode_starts=opened.episode_starts,
        spaces=opened.spaces,
        metadata=opened.metadata,
        **optional,
    )


def write_directory(blocks: Iterable[Dataset], path: Path) -> None:
    """Writes blocks of whole episodes, one after the other, into the existing directory `path`.

    Memory use is that of one block. Raises `DataError` if there are none or their spaces differ.
    """
    writers: dict[str, _Appender] = {}
    starts = [np.zeros(1, np.int64)]
    rows, moments, rewards, low, high = 0, _Moments(), _Moments(), np.inf, -np.inf
    terminal, to_go = 0, 0.0
    spaces: Spaces | None = None
    metadata: dict[str, Any] = {}
    counts: list[dict[str, Any]] = []
    try:
        for block in blocks:
            if spaces is None:
                metadata = lasting(block.metadata)
            spaces = block.spaces if spaces is None else _wider(spaces, block.spaces)
            counts.append(block.metadata)
            held = tuple(n for n in OPTIONAL_COLUMNS if getattr(block, n) is not None)
            if writers and held != tuple(n for n in OPTIONAL_COLUMNS if n in writers):
                raise DataError(
                    "some of the data has propensities or confidences and some has not: leave the "
                    "column alone with columns={'unused': 'NAME'}"
                )
            for name in (*COLUMNS, *held):
                column = getattr(block, name)
                if name not in writers:
                    writers[name] = _Appender(path / f"{name}.npy", column)
                writers[name].append(column)
            starts.append(block.episode_starts[1:] + rows)
            rows += block.size
            moments.add(block.observations)
            returns = block.episode_returns()
            low, high = min(low, returns.min()), max(high, returns.max())
            rewards.add(block.rewards)
            terminal += int(block.terminals.sum())
            to_go += float(block.returns_to_go(1.0).sum())
    finally:
        for writer in writers.values():
            writer.close()
    if spaces is None:
        raise DataError("there are no rows to write: at least one transition is needed")
    metadata |= summed_counts(counts)
    found = {
        "observation_mean": moments.mean,
        "observation_std": moments.deviation,
        "return_low": low,
        "return_high": high,
        "reward_mean": rewards.mean,
        "reward_std": rewards.deviation,
        "terminal_share": terminal / rows,
        "return_to_go_mean": to_go / rows,
    }
    statistics = Statistics(**{name: jnp.asarray(v, jnp.float32) for name, v in found.items()})
    boundaries = np.concatenate(starts)
    np.save(path / "episode_starts.npy", boundaries, allow_pickle=False)
    description = {
        "format": _FORMAT,
        "rows": rows,
        "episodes": int(boundaries.size - 1),
        "spaces": dataclasses.replace(spaces, statistics=statistics).to_json(),
        "metadata": metadata,
        **{name: name in writers for name in OPTIONAL_COLUMNS},
    }
    text = json.dumps(description, indent=1) + "\n"
    (path / _DESCRIPTION).write_text(text, encoding="utf-8")


class _Appender:
    """A `.npy` file that grows; its length is written into the header at the end."""

    def __init__(self, path: Path, example: np.ndarray):
        self.file = path.open("w+b")
        self.example = example
        self.rows = 0
        self._header()

    def append(self, column: np.ndarray) -> None:
        """Adds rows."""
        if column.shape[1:] != self.example.shape[1:] or column.dtype != self.example.dtype:
            raise DataError(
                f"a column changes from {self.example.dtype}{list(self.example.shape[1:])} to "
                f"{column.dtype}{list(column.shape[1:])} in the middle of the data"
            )
        self.file.write(np.ascontiguousarray(column).data)
        self.rows += column.shape[0]

    def close(self) -> None:
        """Completes the header and closes the file."""
        self.file.seek(0)
        self._header()
        self.file.close()

    def _header(self) -> None:
        # NumPy pads the header so that a longer first axis still fits in place.
        np.lib.format.write_array_header_1_0(
            self.file,
            {
                "descr": np.lib.format.dtype_to_descr(self.example.dtype),
                "fortran_order": False,
                "shape": (self.rows, *self.example.shape[1:]),
            },
        )


class _Moments:
    """Mean and standard deviation of rows that come in blocks."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, block: np.ndarray) -> None:
        """Takes in more rows."""
        size = block.shape[0]
        mean = block.mean(0, dtype=np.float64)
        squares = block.var(0, dtype=np.float64) * size
        total = self.count + size
        shift = mean - self.mean
        self.squares = self.squares + squares + shift**2 * (self.count * size / total)
        self.mean = self.mean + shift * (size / total)
        self.count = total

    @property
    def deviation(self) -> np.ndarray:
        return np.asarray(np.sqrt(self.squares / self.count))


def _wider(spaces: Spaces, other: Spaces) -> Spaces:
    if isinstance(spaces.action, Discrete) and isinstance(other.action, Discrete):
        both = spaces.action.names, other.action.names
        names = max(both, key=len)
        # Where numbering begins decides what the rows hold that are written already.
        if all(some == names[: len(some)] for some in both):
            action: Box | Discrete = Discrete.of(names)
            spaces = Spaces(spaces.observation, action, spaces.horizon)
            other = Spaces(other.observation, action, other.horizon)
        else:
            raise DataError(
                "different numbers of actions occur in different parts of the data: say which "
                "there are with action_labels"
            )
    reason = spaces.mismatch(other)
    if reason is not None:
        raise DataError(f"the data changes in the middle: {reason}")
    return spaces


def _description(path: Path) -> dict[str, Any]:
    require_regular(path / _DESCRIPTION)
    try:
        description = json_text.parse((path / _DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != _FORMAT:
            raise ValueError(f"format {description['format']!r} is not {_FORMAT!r}")
        for name in ("rows", "episodes"):
            if not isinstance(description[name], int) or description[name] < 1:
                raise ValueError(f"{name} is {description[name]!r}, which is no count")
        for name in ("spaces", "metadata"):
            if not isinstance(description.setdefault(name, {}), dict):
                raise ValueError(f"{name} is no table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / _DESCRIPTION} is missing or damaged ({error}): write the directory again"
        ) from None
    return description


def _open(path: Path, name: str, rows: int) -> np.ndarray:
    file = path / f"{name}.npy"
    if file.exists() and file.resolve().parent != path.resolve():
        raise DataError(f"{file} is a link to another place, which is not followed: copy the file")
    require_regular(file)
    try:
        column = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # Whatever a damaged header makes the library trip on.
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{file} is missing, truncated or corrupt ({reason}): write the directory again"
        ) from None
    if column.ndim == 0 or column.shape[0] != rows:
        raise DataError(f"{file} has shape {column.shape} but {rows:,} rows are needed")
    return column


class _ColumnDirectory(AbstractFormat):
    title = "column directory"
    variants = ("columns",)
    suffixes = ("",)
    sign = _DESCRIPTION

    def recognises(self, place: Path, head: bytes) -> bool:
        return is_column_directory(place)

    def open(self, place: Path, mapping: Mapping | None, rows: int | None) -> Dataset:
        return read_directory(place)

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        place.mkdir()
        write_directory([dataset], place)


FORMATS = (_ColumnDirectory(),)
