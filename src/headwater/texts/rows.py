"""Rows of texts as they are stored: JSON Lines, a JSON array, CSV or Parquet, compressed or not."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.core.stored_size import refuse_beyond
from headwater.datasets.formats.arrow_messages import bounded, refuse_large_parquet

Fields = dict[str, Any]
"""A row: values by the names of columns."""


def stored_rows(path: Path) -> Iterator[tuple[int, Fields]]:
    """Every row with its number, counted from one (of lines, in JSON Lines).

    Raises `DataError`, naming file and row, for what cannot be read.
    """
    if path.is_dir():
        raise DataError(f"{path}: this is a directory: name the file in it that holds the texts")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the path")
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        yield from _parquet_rows(path)
        return
    if path.suffix == ".parquet":
        raise DataError(f"{path}: this is no Parquet file: it is truncated or corrupt")
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    try:
        # What some editors put first (a byte-order mark) is not part of the text.
        with io.TextIOWrapper(_opened(path, head), encoding="utf-8-sig", newline="") as file:
            separators = {".csv": ",", ".tsv": "\t"}
            if (separator := separators.get(plain.suffix.lower())) is not None:
                yield from _table_rows(path, file, separator)
            else:
                yield from _json_rows(path, file)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: it is not UTF-8 (byte {error.start}): save it as UTF-8; JSON Lines, JSON, "
            "CSV, Parquet and .txt can be read"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: it is not whole ({error}): copy or download it again") from None


def _opened(path: Path, head: bytes) -> Any:
    if not head.startswith(b"\x1f\x8b"):
        return path.open("rb")
    with gzip.open(path) as file:
        size = 0
        while piece := file.read(1 << 20):
            size += len(piece)
            refuse_beyond(size, path.stat().st_size)
    return gzip.open(path)


def _json_rows(path: Path, file: Any) -> Iterator[tuple[int, Fields]]:
    first = True
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            yield from _array_rows(path, line + file.read())
            return
        first = False
        try:
            fields = json_text.parse(line)
        except ValueError as error:
            raise DataError(
                f"{path}, row {number}: this line is no JSON object ({error}): JSON Lines has one "
                "on each line, and other JSON must be one array of such rows"
            ) from None
        yield number, _object(path, number, fields)


def _array_rows(path: Path, text: str) -> Iterator[tuple[int, Fields]]:
    try:
        rows = json_text.parse(text)
    except ValueError as error:
        raise DataError(f"{path}: this is no JSON array of rows ({error})") from None
    for number, fields in enumerate(rows, 1):
        yield number, _object(path, number, fields)


def _object(path: Path, number: int, fields: Any) -> Fields:
    if not isinstance(fields, dict):
        raise DataError(f"{path}, row {number}: a row must be a JSON object with named columns")
    return fields


def _table_rows(path: Path, file: Any, separator: str) -> Iterator[tuple[int, Fields]]:
    try:
        reader = csv.DictReader(file, delimiter=separator, strict=True)
        names = reader.fieldnames or ()
        for name in names:
            if list(names).count(name) > 1:
                raise DataError(f"{path}: there are two columns '{name}': rename one of them")
        for number, fields in enumerate(reader, 1):
            if None in fields or None in fields.values():
                raise DataError(f"{path}, row {number}: it does not have {len(names)} values")
            yield number, dict(fields)
    except csv.Error as error:
        raise DataError(f"{path}: this table cannot be read ({error})") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Fields]]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    number = 0
    try:
        refuse_large_parquet(path.absolute())
        batches = parquet.ParquetFile(path.absolute()).iter_batches()
        for batch in bounded(batches, path.stat().st_size):
            for fields in batch.to_pylist():
                number += 1
                yield number, fields
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: this Parquet file is truncated or corrupt ({reason}): copy or download it "
            "again"
        ) from None
