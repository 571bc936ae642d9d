"""Replay from a disk that is read in long pieces: a pool in memory, renewed bit by bit."""

import dataclasses
from pathlib import Path

import equinox as eqx
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractHostSource, Keys
from headwater.sources.out_of_core import (
    Mapped,
    hand_over,
    open_mapped,
    random_rows,
    require_same,
)

_AHEAD = 32
"""Pieces that the system is told of before they are read: a disk is faster with many requests."""
_LONGEST, _PIECE_BYTES = 512, 2**17
"""Rows and bytes of a piece: so long that reading it costs little more than finding it."""
_MOST_PIECES, _POOL_BYTES = 4096, 2**29
"""Pieces and bytes of a pool, if nothing is said of it."""
_FIELDS = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "next_observations": "next_observation",
    "terminals": "terminal",
    "truncations": "truncated",
}
"""What `Transitions` calls the columns."""


class Pool:
    """The rows in memory: the last `pieces` of an endless sequence of random runs of rows.

    Where run number i begins depends on i alone, uniform over all rows; after the last row comes
    the first. So every row is as likely as any other, and what the pool holds follows from how far
    the sequence has come.
    """

    def __init__(self, mapped: Mapped, pieces: int | None, length: int | None):
        self._mapped = mapped
        stored = {_FIELDS[name]: column for name, column in mapped.columns.items()}
        if mapped.return_to_go is not None:
            stored["return_to_go"] = mapped.return_to_go
        self._stored = stored
        self.length: int = length or max(1, min(_LONGEST, _PIECE_BYTES // mapped.row_bytes))
        held = sum(column.row_bytes for column in stored.values()) + stored["action"].row_bytes
        room = _POOL_BYTES // (self.length * held)
        self.pieces: int = pieces or max(1, min(_MOST_PIECES, room))
        rows = self.pieces * self.length
        self._held = {
            name: np.empty((rows, *column.shape[1:]), column.dtype)
            for name, column in stored.items()
        }
        self._held["next_action"] = np.empty_like(self._held["action"])
        self._starts: dict[int, int] = {}
        self._placed = 0

    def advance(self, placed: int) -> None:
        """Holds what it does after `placed` pieces of the sequence."""
        begin = placed - self.pieces
        if not begin <= self._placed <= placed:
            self._placed = begin
        # One by one, so that a disk that fails leaves a pool that knows how far it is.
        while self._placed < placed:
            for coming in range(self._placed, self._placed + _AHEAD):
                if coming not in self._starts:
                    self._expect(coming)
            self._place(self._placed)
            self._placed += 1

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of `Transitions` in the given `rows` of the pool."""
        return {name: held.take(rows, axis=0) for name, held in self._held.items()}

    def _expect(self, number: int) -> None:
        size = self._mapped.size
        start = int(np.random.default_rng(number).integers(size))
        self._starts[number] = start
        for column in self._stored.values():
            column.expect(start, min(self.length, size - start))

    def _place(self, number: int) -> None:
        first, size = self._starts.pop(number), self._mapped.size
        begin = number % self.pieces * self.length
        end = begin + self.length
        while begin < end:
            count = min(end - begin, size - first)
            self._copy(first, slice(begin, begin + count))
            begin, first = begin + count, 0

    def _copy(self, first: int, to: slice) -> None:
        held, count = self._held, to.stop - to.start
        for name, column in self._stored.items():
            held[name][to] = column.run(first, count)
        # The last row of an episode repeats its own action, and the data's last row is one.
        own = held["action"][to]
        beyond = min(count + 1, self._mapped.size - first)
        following = self._stored["action"].run(first, beyond)[1:]
        held["next_action"][to] = own
        goes_on = ~(held["terminal"][to] | held["truncated"][to])[: len(following)]
        place = to.start + np.flatnonzero(goes_on)
        held["next_action"][place] = following[goes_on]


@dataclasses.dataclass(frozen=True, eq=False)
class Pooled:
    """The open files, the rows in memory, and how many draws were made."""

    mapped: Mapped
    pool: Pool
    draws: int


class PooledReplay(AbstractHostSource[Pooled, Transitions]):
    """Draws rows uniformly from a pool in memory, which is renewed from a column directory.

    For data so large that the system cannot keep its files in memory: a random row then costs as
    much as a run of hundreds. The pool holds `pieces` runs of `length` rows that begin at random
    places; each draw replaces as many rows, the oldest ones, as it draws. So each row is drawn as
    often as any other, and once on average while it is there. What differs from `OutOfCoreReplay`
    is that neighbours tend to be there together: two rows of a batch are of the same run with
    probability 1 / `pieces`. The sequence of runs is the same for all seeds and in every training:
    what differs is which of the rows in the pool are drawn. So a seed learns the same whichever
    others learn beside it, but where a training is short for its data, seeds are more alike than
    with rows drawn one by one.

    **Arguments:** `path`: of the directory; `batch_size`: rows per draw; `discount`: of
    `return_to_go`, which is left out without it; `pieces`, `length`: of the pool; by default a
    piece has 512 rows, or as many as take 128 KiB, and there are 4,096, or as many as take
    512 MiB.
    """

    path: Path | str = eqx.field(static=True)
    batch_size: int = eqx.field(static=True, default=256)
    discount: float | None = eqx.field(static=True, default=None)
    pieces: int | None = eqx.field(static=True, default=None)
    length: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        for name in ("batch_size", "pieces", "length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecificationError(f"PooledReplay: {name}={value} must be at least 1")

    def init(self, *, keys: Keys) -> Pooled:
        # Nothing is mapped: what is read once in long pieces need not stay.
        mapped = open_mapped(self.path, self.discount, 0)
        return Pooled(mapped, Pool(mapped, self.pieces, self.length), 0)

    def draw(self, state: Pooled, agent: Agent, *, keys: Keys):
        pieces, length = state.pool.pieces, state.pool.length
        state.pool.advance(pieces + state.draws * self.batch_size // length)
        rows = random_rows(keys, self.batch_size, pieces * length)
        following = dataclasses.replace(state, draws=state.draws + 1)
        return following, hand_over(state.pool.take(rows))

    def save(self, state: Pooled) -> dict[str, np.ndarray]:
        saved = {**self._sizes(state), "draws": state.draws}
        return {name: np.asarray(count) for name, count in saved.items()}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> Pooled:
        state = self.init(keys=keys)
        require_same(self.path, saved, self._sizes(state))
        return dataclasses.replace(state, draws=int(saved["draws"]))

    @property
    def uses_agent(self) -> bool:
        return False

    def _sizes(self, state: Pooled) -> dict[str, int]:
        pool = state.pool
        sizes = {"batch_size": self.batch_size, "pieces": pool.pieces, "length": pool.length}
        return {"rows": state.mapped.size, **sizes}
