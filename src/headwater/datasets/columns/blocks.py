"""Rows of a file in blocks of whole episodes, or all together."""

import contextlib
from collections.abc import Iterator

import numpy as np

from headwater.core.errors import DataError
from headwater.datasets.columns.finish import count_rows, endings, finish
from headwater.datasets.columns.options import Options
from headwater.datasets.columns.roles import Chunk
from headwater.datasets.dataset import Dataset
from headwater.datasets.episodes.ends import Ends
from headwater.datasets.episodes.returns import truncate_at
from headwater.datasets.metadata import COUNTS


def whole_episodes(
    chunks: Iterator[Chunk], options: Options, rows: int
) -> Iterator[tuple[int, Dataset]]:
    """Datasets of whole episodes of at least `rows` rows, each with the file's row it starts at.

    Memory use is that of a few chunks, or of the longest episode.
    """
    held: list[Chunk] = []
    # A block waits for what follows: rows of which nothing is kept cannot stand alone.
    waiting: tuple[int, Chunk, Ends] | None = None
    ignored: dict[str, str] | None = None
    start = 0
    threshold = rows
    for chunk in chunks:
        held.append(chunk)
        if sum(map(count_rows, held)) < threshold:
            continue
        together = _joined(held)
        with _counted_from(start):
            ends = endings(together, count_rows(together), options, complete=False, before=ignored)
        end = _last_end(ends, options)
        block = {role: values[:end] for role, values in together.items()}
        if not _keeps_rows(block, _part(ends, 0, end)):
            # One episode longer than all of this, or nothing that has a successor: look again when
            # there is twice as much.
            held, threshold = [together], 2 * count_rows(together)
            continue
        if waiting is not None:
            yield _finished(*waiting, options)
            options = _without_counts(options)
        waiting = start, block, _part(ends, 0, end)
        ignored = ends.ignored if ignored is None else ignored
        held, threshold = [{role: values[end:] for role, values in together.items()}], rows
        start += end
    rest = _joined(held) if held else {}
    if rest and count_rows(rest):
        with _counted_from(start):
            ends = endings(rest, count_rows(rest), options, before=ignored)
        if waiting is not None and not _keeps_rows(rest, ends):
            start, block, before = waiting
            rest, ends, waiting = _joined([block, rest]), _followed_by(before, ends), None
        if waiting is not None:
            yield _finished(*waiting, options)
            options = _without_counts(options)
        waiting = start, rest, ends
    if waiting is not None:
        yield _finished(*waiting, options, whole=waiting[0] == 0)


def _finished(
    start: int, block: Chunk, ends: Ends, options: Options, whole: bool = False
) -> tuple[int, Dataset]:
    with _counted_from(start):
        return start, finish(block, options, ends=ends, whole=whole)


def _without_counts(options: Options) -> Options:
    """What was dropped before is told once, by the first block."""
    metadata = {k: v for k, v in (options.metadata or {}).items() if k not in COUNTS}
    return options._replace(metadata=metadata or None)


def _keeps_rows(block: Chunk, ends: Ends) -> bool:
    """Whether anything is left if the last rows of truncated episodes go."""
    if "next_observations" in block or ends.truncations is None:
        return count_rows(block) > 0
    final = not count_rows(block) or bool((ends.terminals | ends.truncations)[-1])
    cut = ends.truncations & ~ends.terminals
    return bool(np.count_nonzero(~cut) > (0 if final else 1))


def join(chunks: Iterator[Chunk]) -> Chunk:
    """All chunks as one. Raises `DataError` if there are none or they do not fit together."""
    held = list(chunks)
    if not held:
        raise DataError("the file has no rows: at least one transition is needed")
    return _joined(held)


@contextlib.contextmanager
def _counted_from(start: int) -> Iterator[None]:
    """Says in errors from which row of the file rows are counted."""
    try:
        yield
    except DataError as error:
        if start == 0:
            raise
        raise DataError(f"{error} (rows counted from row {start:,} of the file)") from None


def _joined(held: list[Chunk]) -> Chunk:
    if len(held) == 1:
        return held[0]
    joined = {}
    for role in held[0]:
        widths = {part[role].shape[1:] for part in held}
        if len(widths) > 1:
            raise DataError(
                f"{role} changes its shape from {sorted(widths)[0]} to {sorted(widths)[1]} in the "
                "middle of the file: every row must have the same shape"
            )
        joined[role] = np.concatenate([part[role] for part in held])
    return joined


def _last_end(ends: Ends, options: Options) -> int:
    """Number of rows up to the last episode that surely ends here."""
    terminals, truncations = ends.terminals, ends.truncations
    if truncations is None and options.horizon is not None:
        truncations = truncate_at(terminals, options.horizon)
    last = np.flatnonzero(terminals if truncations is None else terminals | truncations)
    return int(last[-1]) + 1 if last.size else 0


def _part(ends: Ends, begin: int, end: int) -> Ends:
    truncations = None if ends.truncations is None else ends.truncations[begin:end]
    return Ends(ends.terminals[begin:end], truncations, ends.unmarked[begin:end], ends.ignored)


def _followed_by(ends: Ends, more: Ends) -> Ends:
    """The ends of two blocks that follow each other."""
    truncations = None
    if ends.truncations is not None or more.truncations is not None:
        # What one of them leaves open, the other does not.
        parts = [
            np.zeros_like(e.terminals) if e.truncations is None else e.truncations
            for e in (ends, more)
        ]
        truncations = np.concatenate(parts)
    return Ends(
        np.concatenate([ends.terminals, more.terminals]),
        truncations,
        np.concatenate([ends.unmarked, more.unmarked]),
        ends.ignored,
    )
