"""What Arrow and Parquet files claim to unpack to, read from their headers alone."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError
from headwater.core.stored_size import ALWAYS, refuse_beyond

_WIDTH = 8
"""Bytes of a value, at most."""
_FILE_START = 8
"""Bytes before the first message of an Arrow file."""


def refuse_large_parquet(path: Path) -> None:
    """Raises `DataError` if the columns of a Parquet file claim too much.

    Rows of lists may hold more than one value a row: see `bounded`.
    """
    import pyarrow.parquet as parquet

    # Not the description of each column: where it is damaged, asking for it ends the process.
    found = parquet.read_metadata(path)
    refuse_beyond(found.num_rows * found.num_columns * _WIDTH, path.stat().st_size)


def bounded(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """The same batches, until together they are more than a file of `size` bytes can hold.

    Raises `DataError` then.
    """
    total = 0
    for batch in batches:
        total += batch.nbytes
        refuse_beyond(total, size)
        yield batch


def refuse_large_arrow(path: Path, start: int = _FILE_START) -> None:
    """Raises `DataError` if the compressed buffers of an Arrow file claim too much.

    **Arguments:** `start`: bytes before the first message.
    """
    import pyarrow as arrow

    size, total = path.stat().st_size, 0
    with arrow.memory_map(str(path)) as file:
        file.seek(start)
        reader = arrow.ipc.MessageReader.open_stream(file)
        for message in reader:
            if message.type != "schema":
                total += _unpacked(message.metadata.to_pybytes(), message.body)
            refuse_beyond(total, size)


def arrow_batches(path: Path, *, footer: bool = True) -> tuple[Any, Any]:
    """The schema and an iterator over the batches of an Arrow file, each checked whole.

    Their offsets are what the processor would follow without looking.

    **Arguments:** `footer`: whether it has one, which lists the batches; a stream, as the datasets
    of Hugging Face write it, has none.

    Raises `DataError` for batches that claim too much, and `ArrowException` for damaged ones.
    """
    import pyarrow as arrow

    start = _FILE_START if footer else 0
    refuse_large_arrow(path, start)
    count = None
    if footer:
        count = arrow.ipc.open_file(arrow.memory_map(str(path))).num_record_batches
    file = arrow.memory_map(str(path))
    file.seek(start)
    # What was looked at above; the footer could point elsewhere.
    reader = arrow.ipc.open_stream(file)

    def batches():
        found = 0
        for batch in reader:
            batch.validate(full=True)
            found += 1
            yield batch
        if count is not None and found != count:
            raise DataError(f"this arrow file lists {count} batches but holds {found}")

    return reader.schema, batches()


def _unpacked(metadata: bytes, body: Any) -> int:
    """Bytes that the buffers of a message unpack to, by its description (a FlatBuffer)."""
    try:
        message = struct.unpack_from("<I", metadata)[0]
        header = _table(metadata, message, 2)
        kind = metadata[_field(metadata, message, 1)]
        # A batch of a dictionary holds the batch proper.
        batch = _table(metadata, header, 1) if kind == 2 else header
        if not _field(metadata, batch, 3):
            return len(body)
        buffers = _table(metadata, batch, 2)
        (count,) = struct.unpack_from("<I", metadata, buffers)
        total = 0
        for number in range(count):
            start, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * number)
            if length >= 8:
                (claimed,) = struct.unpack("<q", body[start : start + 8].to_pybytes())
                total += length if claimed == -1 else max(claimed, 0)
        return total
    except (struct.error, IndexError, ValueError):
        # Nothing can be said of it, so nothing is believed.
        return ALWAYS + 2**62


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a table lies; 0 if it is left out."""
    (back,) = struct.unpack_from("<i", data, table)
    directory = table - back
    (size,) = struct.unpack_from("<H", data, directory)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, directory + 4 + 2 * number)
    return table + offset if offset else 0


def _table(data: bytes, table: int, number: int) -> int:
    """Where the table or the vector lies that a field refers to."""
    place = _field(data, table, number)
    if not place:
        raise ValueError("it is left out")
    return place + struct.unpack_from("<I", data, place)[0]
