"""Tables: Parquet and Arrow (Feather), by a declared mapping of columns."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.datasets.columns.options import Options, stored_options
from headwater.datasets.columns.roles import ANYTHING, Chunk, Mapping, resolve
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.arrow_messages import arrow_batches, bounded, refuse_large_parquet
from headwater.datasets.formats.tables.cells import (
    FLAGS,
    action_words,
    is_number,
    no_number,
    numbered,
    words_note,
)
from headwater.datasets.formats.tables.types import plain, plain_column
from headwater.datasets.formats.trajectories import is_trajectories, reading_note, unrolled
from headwater.datasets.metadata import ACTION_NAMES, remark_of_format

_KEY = b"headwater"
_Sizes = dict[str, tuple[int, ...]]
"""The shape of what a column holds in a row, by its name."""
_BROKEN = (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError)
"""What the library raises for damaged files; its own errors derive from these."""
_GAPS = ("actions", "next_observations", "continues")
"""Roles whose columns may be empty in rows: NaN stands there."""


def open_table(path: Path, kind: str, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of about `rows`.

    **Arguments:** `kind`: `parquet`, `arrow` or `stream`, Arrow's messages without a footer.

    Raises `DataError` for a damaged file, a missing column or values that are no numbers.
    """
    # The library takes what has a colon in it for an address, unless it is absolute.
    import pyarrow as arrow

    path = path.absolute()

    def whole(name: str) -> Any:
        _, batches = _open(path, kind, rows)
        return arrow.chunked_array([batch.column(name) for batch in batches])

    return open_batches(*_open(path, kind, rows), mapping, whole)


def open_batches(
    schema: Any, batches: Iterator[Any], mapping: Mapping | None, whole: Callable[[str], Any]
):
    """What is stored beside the columns, and the columns in chunks: one for each Arrow batch.

    **Arguments:** `whole`: all rows of the column of a name.
    """
    stored = _stored(schema)
    try:
        names = schema.names
    except ValueError as error:
        raise _damaged("table", error) from None
    given = stored.get("columns")
    if given is not None and not mapping:
        Options().over({"columns": given})
    reading = resolve(names, mapping or stored.pop("columns", None))
    stored.pop("columns", None)
    used = {name for columns in reading.columns.values() for name in columns}
    batches = plain(batches, used)
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is None:
        return {**stored, "reading": reading}, iter(())
    batches = itertools.chain([first], batches)
    words = _words_of_actions(first, reading.columns, lambda name: plain_column(whole(name), name))
    if words is not None:
        name = reading.columns["actions"][0]
        batches = _with_numbers(batches, name, words)
        metadata = remark_of_format(stored.get("metadata"), words_note(name, words))
        stored["metadata"] = {**metadata, ACTION_NAMES: words}
    if is_trajectories(first, reading.columns):

        def column(values: Any, name: str, start: int) -> np.ndarray:
            return _column(values, name, start, anything=False)

        note = reading_note(first, reading.columns)
        stored["metadata"] = remark_of_format(stored.get("metadata"), note)
        return {**stored, "reading": reading}, unrolled(batches, reading.columns, column)
    return {**stored, "reading": reading}, _chunks(batches, reading.columns)


def _words_of_actions(first: Any, roles: dict[str, list[str]], whole) -> list[str] | None:
    """The words that actions are, in order, if they are words in a single column."""
    import pyarrow.types as types

    names = roles.get("actions", [])
    if len(names) != 1:
        return None
    if not types.is_string(first.column(names[0]).type):
        return None
    return action_words(whole(names[0]).unique().drop_null().to_pylist())


def _with_numbers(batches: Iterator[Any], name: str, words: list[str]) -> Iterator[Any]:
    for batch in batches:
        place = batch.schema.get_field_index(name)
        yield batch.set_column(place, name, numbered(batch.column(place), words))


def write_parquet(dataset: Dataset, path: Path) -> None:
    """Writes one table: list columns, the number of the episode, and the rest in the schema."""
    import pyarrow.parquet as parquet

    table = _table(dataset)
    parquet.write_table(table, path.absolute(), row_group_size=65_536, write_page_checksum=True)


def write_arrow(dataset: Dataset, path: Path) -> None:
    """Writes the same table as `write_parquet` in Arrow's own file format (Feather)."""
    import pyarrow as arrow

    table = _table(dataset)
    with (
        arrow.OSFile(str(path.absolute()), "wb") as sink,
        arrow.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=65_536)


def _table(dataset: Dataset):
    import pyarrow as arrow

    def rows(array: np.ndarray):
        if array.ndim == 1:
            return arrow.array(array)
        flat = arrow.array(np.ascontiguousarray(array).reshape(-1))
        return arrow.FixedSizeListArray.from_arrays(flat, array.shape[1])

    columns = {
        "episode": rows(dataset.episode_of_row),
        "observations": rows(dataset.observations),
        "actions": rows(dataset.raw_actions()),
        "rewards": rows(dataset.rewards),
        "terminals": rows(dataset.terminals),
        "truncations": rows(dataset.truncations),
        "next_observations": rows(dataset.next_observations),
    }
    columns |= {name: rows(column) for name, column in dataset.beside().items()}
    table = arrow.table(columns)
    stored = {name: json.loads(text) for name, text in stored_options(dataset).items()}
    return table.replace_schema_metadata({_KEY: json.dumps(stored).encode()})


def _open(path: Path, kind: str, rows: int | None) -> tuple[Any, Iterator[Any]]:
    import pyarrow.parquet as parquet

    try:
        if kind == "parquet":
            # Buffering ahead would hold on to everything that was read.
            refuse_large_parquet(path)
            file = parquet.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
            batches = file.iter_batches(batch_size=rows or 65_536)
            return _flattened(file.schema_arrow, bounded(batches, path.stat().st_size))
        return _flattened(*arrow_batches(path, footer=kind == "arrow"))
    except _BROKEN as error:
        raise _damaged(kind, error) from None


def _flattened(schema: Any, batches: Iterator[Any]) -> tuple[Any, Iterator[Any]]:
    """The same with a column `NAME.PART` for each part of a column of structures."""
    import pyarrow as arrow
    import pyarrow.types as types

    def flat(table: Any) -> Any:
        while any(types.is_struct(kind) for kind in table.schema.types):
            table = table.flatten()
        return table

    def rows() -> Iterator[Any]:
        for batch in _guarded(batches):
            yield from flat(arrow.Table.from_batches([batch])).combine_chunks().to_batches()

    if not any(types.is_struct(kind) for kind in schema.types):
        return schema, _guarded(batches)
    return flat(schema.empty_table()).schema, rows()


def _guarded(batches) -> Iterator[Any]:
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except _BROKEN as error:
            raise _damaged("table", error) from None
        yield batch


def _damaged(kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:120]
    return DataError(
        f"this {kind} file is truncated or corrupt ({reason}): copy or download it again"
    )


def _stored(schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(_KEY)
    if text is None:
        return {}
    try:
        stored = json_text.parse(text)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise DataError("the 'headwater' entry of the table's schema is no JSON object: remove it")
    return stored


def _chunks(batches, roles: dict[str, list[str]]) -> Iterator[Chunk]:
    start = 0
    gaps = [name for role in _GAPS for name in roles.get(role, ())]
    for batch, sizes in _with_sizes(batches, gaps):
        yield {
            role: _values(batch, columns, start, role in ANYTHING, sizes if role in _GAPS else None)
            for role, columns in roles.items()
        }
        start += batch.num_rows


def _with_sizes(batches, names: list[str]) -> Iterator[tuple[Any, _Sizes]]:
    """Each batch that has rows, with the size of what the columns `names` hold in a row.

    Batches in which such a column is empty wait for the first one in which it is not.
    """
    sizes: _Sizes = {}
    waiting: list[Any] = []
    for batch in batches:
        if batch.num_rows == 0:
            continue
        waiting.append(batch)
        for name in names:
            held = batch.column(name)
            if name not in sizes and held.null_count < len(held):
                sizes[name] = np.shape(held.drop_null().slice(0, 1).to_pylist()[0])
        if len(sizes) == len(set(names)):
            yield from ((each, sizes) for each in waiting)
            waiting = []
    yield from ((each, sizes) for each in waiting)


def _values(
    batch, columns: list[str], start: int, anything: bool, sizes: _Sizes | None
) -> np.ndarray:
    parts = [
        _column(
            batch.column(name),
            name,
            start,
            anything,
            None if sizes is None else sizes.get(name, ()),
        )
        for name in columns
    ]
    return parts[0] if len(parts) == 1 else np.column_stack(parts)


def _column(
    values, name: str, start: int, anything: bool, gap: tuple[int, ...] | None = None
) -> np.ndarray:
    """The numbers of a column, or whatever it holds if it may be `anything`.

    **Arguments:** `gap`: what is empty becomes NaN, of this size where no row of the column says
    it; by default it is refused.
    """
    import pyarrow.types as types

    rows, shape = len(values), []
    if gap is not None and values.null_count == rows:
        return np.full((rows, *gap), np.nan)
    if gap is not None and values.null_count and types.is_nested(values.type):
        known = _column(values.drop_null(), name, start, anything, gap)
        array = np.full((rows, *known.shape[1:]), np.nan)
        array[values.is_valid().to_numpy(zero_copy_only=False)] = known
        return array
    while (
        types.is_list(values.type)
        or types.is_large_list(values.type)
        or (types.is_fixed_size_list(values.type))
    ):
        _refuse_missing(values, name, start, len(values) // max(rows, 1))
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        different = np.flatnonzero(lengths != lengths[0])
        if different.size:
            per_row = int(np.prod(shape, dtype=int))
            raise DataError(
                f"column '{name}' has {lengths[0]} components at row {start} but "
                f"{lengths[different[0]]} at row {start + different[0] // per_row}: every row "
                "needs the same number"
            )
        shape.append(int(lengths[0]))
        values = values.flatten()
    if gap is None:
        _refuse_missing(values, name, start, int(np.prod(shape, dtype=int)))
    if types.is_string(values.type) and not anything:
        return _flags(values, name, start, int(np.prod(shape, dtype=int))).reshape(rows, *shape)
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf" and not anything:
        raise DataError(
            f"column '{name}' has type {values.type}, which is not a number: convert it, or map "
            "another column"
        )
    return array.reshape(rows, *shape)


def _flags(values, name: str, start: int, per_row: int) -> np.ndarray:
    """Text that says yes or no, as booleans."""
    known = values.unique().to_pylist()
    strange = [text for text in known if text.strip().lower() not in FLAGS]
    if strange:
        # What is a number, beside something else that is not, is not what to look for.
        strange = next((text for text in strange if not is_number(text)), strange[0])
        first = values.to_pylist().index(strange)
        raise no_number(name, strange, start + first // max(per_row, 1))
    codes = {text: FLAGS[text.strip().lower()] for text in known}
    return np.array([codes[text] for text in values.to_pylist()], bool)


def _refuse_missing(values, name: str, start: int, per_row: int) -> None:
    if values.null_count:
        first = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"column '{name}' has no value at row {start + first // max(per_row, 1)} (and "
            f"{values.null_count - 1:,} more are missing): remove or fill these rows"
        )


class _Parquet(AbstractFormat):
    title = "Parquet"
    variants = ("parquet",)
    suffixes = (".parquet",)

    def recognises(self, place: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_table(place, "parquet", mapping, rows)

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        write_parquet(dataset, place)


class _Arrow(AbstractFormat):
    title = "Arrow/Feather"
    variants = ("arrow",)
    suffixes = (".arrow", ".feather")

    def recognises(self, place: Path, head: bytes) -> bool:
        return head.startswith(b"ARROW1")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_table(place, "arrow", mapping, rows)

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        write_arrow(dataset, place)


class _ArrowStream(AbstractFormat):
    title = "Arrow stream"
    suffixes = (".arrows",)

    def recognises(self, place: Path, head: bytes) -> bool:
        # A message begins so, and so does no file of another kind; text has no such bytes.
        return (
            head.startswith(b"\xff\xff\xff\xff") and 0 < int.from_bytes(head[4:8], "little") < 2**31
        )

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_table(place, "stream", mapping, rows)


FORMATS = (_Parquet(), _Arrow(), _ArrowStream())
