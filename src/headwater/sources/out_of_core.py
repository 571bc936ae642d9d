"""Uniform replay of transitions that stay on disk."""

import dataclasses
import math
import os
import sys
import tempfile
import weakref
from functools import partial
from pathlib import Path
from typing import IO, Any

import equinox as eqx
import jax
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractHostSource, Keys
from headwater.datasets.episodes.returns import returns_to_go
from headwater.datasets.formats.directory_format import open_columns

_MOST_ROWS = 2**31 - 1
"""Rows are drawn as 32-bit integers."""
_BLOCK = 1_000_000
"""Rows whose return to go is computed at once."""
_MAPPED = 5 * 2**27
"""Bytes of the smallest columns that may come to lie in memory. A mapped file counts as memory of
the process as soon as it is read; rows of the larger columns are read one by one."""


class Column:
    """A column on disk: mapped if `mapped`, else read from the file, by rows or by runs of them.

    **Arguments:** `array`: the mapped file; `name`: what to call it when it cannot be read; `file`:
    its open descriptor, which the column will close; by default it is opened.
    """

    def __init__(self, array: np.memmap, name: str, mapped: bool, file: int | None = None):
        self.shape, self.dtype, self._name = array.shape, array.dtype, name
        self.row_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
        self._begin = array.offset
        self._file = os.open(str(array.filename), os.O_RDONLY) if file is None else file
        weakref.finalize(self, os.close, self._file)
        # A plain array of the same memory: a subclass costs time at every access.
        self._array = array.view(np.ndarray) if mapped else None

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The `rows` (in ascending order) of the column. Raises `DataError` if they are gone."""
        if self._array is not None:
            return self._array.take(rows, axis=0)
        file, size, begin = self._file, self.row_bytes, self._begin
        try:
            read = b"".join([os.pread(file, size, begin + row * size) for row in rows.tolist()])
        except OSError as error:
            raise self._gone(error) from None
        return self._rows_of(read, rows.size)

    def run(self, first: int, count: int) -> np.ndarray:
        """`count` rows from the row `first` on. Raises `DataError` if they are gone."""
        size = self.row_bytes
        try:
            read = os.pread(self._file, count * size, self._begin + first * size)
        except OSError as error:
            raise self._gone(error) from None
        return self._rows_of(read, count)

    def _rows_of(self, read: bytes, count: int) -> np.ndarray:
        if len(read) != self.row_bytes * count:
            raise DataError(f"{self._name} became shorter while it was in use: write it again")
        return np.frombuffer(read, self.dtype).reshape(count, *self.shape[1:])

    def _gone(self, error: OSError) -> DataError:
        return DataError(f"{self._name} cannot be read any more ({error})")

    def expect(self, first: int, count: int) -> None:
        """Has the system begin to read `count` rows from the row `first` on, where it can."""
        if sys.platform == "linux":
            place, size = self._begin + first * self.row_bytes, count * self.row_bytes
            os.posix_fadvise(self._file, place, size, os.POSIX_FADV_WILLNEED)


@dataclasses.dataclass(frozen=True, eq=False)
class Mapped:
    """The open files of a column directory.

    **Arguments:** `columns`: by the names of the fields of `Dataset`; `return_to_go`: float32
    `[row]`, where it was asked for.
    """

    columns: dict[str, Column]
    return_to_go: Column | None

    @property
    def size(self) -> int:
        """Number of transitions."""
        return self.columns["rewards"].shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all columns."""
        return sum(column.row_bytes for column in self.columns.values())


class OutOfCoreReplay(AbstractHostSource[Mapped, Transitions]):
    """Draws rows uniformly, with replacement, from a column directory too large for memory.

    The host twin of `Replay`: the same keys draw the same rows, for which it reads no more of the
    files than the pages these are on. Where the system does not keep the files in its memory, every
    row waits for the disk: `PooledReplay` reads runs of rows instead.

    What it draws does not depend on the agent, so the loop draws ahead while an update computes.
    Handing over a batch costs about as much as a small update: where updates take less than about
    ten milliseconds, draw for several of them at once, with `batch_size` of 8 · 256, say, and the
    stage's `updates_per_draw` of 8. Each update then still has 256 rows of its own.

    `headwater.datasets.write.write` makes such a directory (format `"columns"`);
    `open_columns(path).spaces` is what to initialise a method for.

    **Arguments:** `path`: of the directory; `batch_size`: rows per draw; `discount`: of
    `return_to_go`, which is left out without it. The returns are computed once, when the run
    begins, into a temporary file of four bytes per row.
    """

    path: Path | str = eqx.field(static=True)
    batch_size: int = eqx.field(static=True, default=256)
    discount: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.batch_size < 1:
            raise SpecificationError(
                f"OutOfCoreReplay: batch_size={self.batch_size}, but a batch has at least one row"
            )

    def init(self, *, keys: Keys) -> Mapped:
        return open_mapped(self.path, self.discount, _MAPPED)

    def draw(self, state: Mapped, agent: Agent, *, keys: Keys):
        rows = random_rows(keys, self.batch_size, state.size)
        return state, hand_over(gather(state, rows))

    def save(self, state: Mapped) -> dict[str, np.ndarray]:
        return {name: np.asarray(count) for name, count in self._sizes(state).items()}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> Mapped:
        state = self.init(keys=keys)
        require_same(self.path, saved, self._sizes(state))
        return state

    @property
    def uses_agent(self) -> bool:
        return False

    def _sizes(self, state: Mapped) -> dict[str, int]:
        return {"rows": state.size, "batch_size": self.batch_size}


def open_mapped(path: Path | str, discount: float | None, most_mapped: int) -> Mapped:
    """Opens a column directory, and computes its returns to go if there is a `discount`.

    **Arguments:** `most_mapped`: bytes of the smallest columns that may come to lie in memory.

    Raises `DataError` if it cannot be used or has too many rows.
    """
    opened = open_columns(Path(path).expanduser())
    if opened.size > _MOST_ROWS:
        raise DataError(
            f"{path} has {opened.size:,} rows, but no more than {_MOST_ROWS:,} can be "
            "replayed: divide it into several directories and mix them"
        )
    arrays: dict[str, Any] = dict(opened.columns)
    own: dict[str, int] = {}
    if discount is not None:
        rewards = arrays["rewards"].view(np.ndarray)
        array, file = _store_returns(rewards, opened.episode_starts, discount)
        arrays["return_to_go"], own["return_to_go"] = array, file
    room, columns = most_mapped, {}
    for name in sorted(arrays, key=lambda each: arrays[each].nbytes):
        room -= arrays[name].nbytes
        where = f"{path}: column '{name}'"
        columns[name] = Column(arrays[name], where, room >= 0, own.get(name))
    return Mapped(columns, columns.pop("return_to_go", None))


def require_same(path: Path | str, saved: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
    """Raises `DataError` if one of the `sizes` is not what it was when a run's source was `saved`.

    The `rows` are the data's; the others say how these are drawn.
    """
    for name, size in sizes.items():
        before = int(saved[name]) if name in saved else None
        if size == before:
            continue
        if name == "rows":
            raise DataError(
                f"{path} has {size:,} rows but had {before or 0:,} when the run was interrupted: "
                "continue with the data that it began with, or begin a new run"
            )
        raise DataError(
            f"{path}: this run drew its rows in another way ({name} is {size:,} now, was "
            f"{'not known' if before is None else f'{before:,}'}), as an earlier version did: "
            "begin a new run"
        )


def gather(state: Mapped, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of `Transitions`, with the shape of `rows` in front, read from the files.

    The last row of an episode repeats its own action as `next_action`, as in
    `Dataset.transitions`.
    """
    # In the order of the file, so that the disk is read in one direction and each page once.
    order = np.argsort(rows, axis=None)
    inverse = np.empty_like(order)
    inverse[order] = np.arange(order.size)
    ordered = rows.reshape(-1)[order]

    def read(column: Column, at: np.ndarray = ordered) -> np.ndarray:
        found = column.take(at).take(inverse, axis=0)
        return found.reshape(*rows.shape, *column.shape[1:])

    columns = state.columns
    terminal, truncated = read(columns["terminals"]), read(columns["truncations"])
    # Only the last row of an episode is terminal or truncated.
    following = ordered + ~(terminal | truncated).reshape(-1)[order]
    fields = {
        "observation": read(columns["observations"]),
        "action": read(columns["actions"]),
        "reward": read(columns["rewards"]),
        "next_observation": read(columns["next_observations"]),
        "terminal": terminal,
        "truncated": truncated,
        "next_action": read(columns["actions"], following),
    }
    if state.return_to_go is not None:
        fields["return_to_go"] = read(state.return_to_go)
    return fields


def random_rows(keys: Keys, count: int, size: int) -> np.ndarray:
    """`count` row numbers below `size` for each of the keys, those that `Replay` draws."""
    return np.asarray(_rows(_beside_host(keys), count, size))


def hand_over(columns: dict[str, np.ndarray]) -> Transitions:
    """The fields of `Transitions` on the device."""
    return Transitions(**_on_device(columns))


@partial(jax.jit, static_argnums=(1, 2))
def _rows(keys, count, size):
    return jax.vmap(lambda key: jax.random.randint(key, (count,), 0, size))(keys)


# A fifth of the time of `device_put`, which looks at one array after the other.
@jax.jit
def _on_device(columns):
    return columns


def _beside_host(keys: Keys) -> Keys:
    # An accelerator would queue the draw behind the update that is meant to hide it.
    if jax.default_backend() == "cpu":
        return keys
    try:
        return jax.device_put(keys, jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the host's processor alone.
        return keys


def _store_returns(rewards: np.ndarray, starts: np.ndarray, discount: float):
    """Returns to go of all rows, mapped from a file that vanishes with its open descriptor."""
    try:
        # Written rather than mapped for writing: a full disk then is an error, not a crash.
        with tempfile.TemporaryFile() as file:
            _write_returns(file, rewards, starts, discount)
            mapped = np.memmap(file, np.float32, "r", shape=rewards.shape)
            return mapped, os.dup(file.fileno())
    except OSError as error:
        raise DataError(
            f"the returns to go of {rewards.size:,} rows cannot be stored in the temporary "
            f"directory {tempfile.gettempdir()} ({error}): make room there, or name another "
            "directory in the environment variable TMPDIR"
        ) from None


def _write_returns(file: IO[bytes], rewards, starts, discount: float) -> None:
    following = 0.0
    # From the last block to the first, since each builds on the one after it.
    for begin in reversed(range(0, rewards.size, _BLOCK)):
        end = min(begin + _BLOCK, rewards.size)
        first, beyond = np.searchsorted(starts, (begin, end), side="right")
        inside = starts[first:beyond]
        cuts = np.unique(np.concatenate([[begin], inside, [end]]))
        totals = returns_to_go(rewards[begin:end], cuts - begin, discount)
        if end not in inside:
            # The last episode of this block goes on in the next.
            rest = np.arange(end - cuts[-2], 0, -1)
            totals[cuts[-2] - begin :] += discount**rest * following
        following = float(totals[0])
        file.seek(begin * 4)
        file.write(totals.astype(np.float32).data)
    file.flush()
