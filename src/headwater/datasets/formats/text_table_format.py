"""Tables as text: CSV in the dialects that tools and countries write, also compressed."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from headwater.core.errors import DataError
from headwater.core.stored_size import refuse_beyond
from headwater.datasets.columns import Mapping
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.table_format import open_batches

_COLUMN_BYTES = 8_192
"""That the reader of CSV reserves for a column."""
_BLOCK = 2**20
_SAMPLE = 2**16
"""Bytes from the beginning by which the dialect is told."""
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_NUMBER = re.compile(r"[+-]?[0-9]*[.,]?[0-9]*([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r'"[+-]?(0,[0-9]+|[0-9]*,([0-9]{1,2}|[0-9]{4,}))"')
"""A quoted number whose comma divides no thousands, since other than three digits follow it, or
nothing but zero precedes it."""
_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


class _Dialect(NamedTuple):
    """How the text is written.

    **Arguments:** `encoding`: Python's name; `delimiter`; `lines`: to skip before the header;
    `decimal_comma`: whether the decimal mark may be one.
    """

    encoding: str
    delimiter: str
    lines: int
    decimal_comma: bool


def open_text_table(path: Path, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of about `rows`.

    The encoding, the delimiter and the decimal mark are told from the content; what was found
    other than UTF-8, commas and points is said in the metadata. Raises `DataError` for what is no
    table.
    """
    packed = path.name.lower().endswith(".gz")
    dialect = _dialect(path, packed)
    table, decimal = _table(path, packed, dialect)
    stored, chunks = open_batches(table.schema, iter(table.to_batches(rows)), mapping)
    found = [
        f"text in {dialect.encoding}" if not dialect.encoding.startswith("utf-8") else "",
        f"columns separated by {_DELIMITERS[dialect.delimiter]}" * (dialect.delimiter != ","),
        "decimal commas" * (decimal == ","),
    ]
    if any(found):
        described = ", ".join(part for part in found if part)
        stored["metadata"] = {"reading": [f"the text table was read as {described}"]}
    return stored, chunks


def _dialect(path: Path, packed: bool) -> _Dialect:
    head = b""
    for block in _blocks(path, packed):
        head += block
        if len(head) >= _SAMPLE:
            break
    encoding = _encoding(head, path, packed)
    # What is cut off at the end of the sample is no character, nor a row.
    text = head[:_SAMPLE].decode(encoding, "ignore")
    lines = text.splitlines()
    if len(head) >= _SAMPLE and len(lines) > 1:
        lines = lines[:-1]
    declared = re.fullmatch(r"sep=(.)", lines[0].strip("\ufeff ")) if lines else None
    skipped = 0
    if declared and declared.group(1) in _DELIMITERS:
        delimiter, skipped = declared.group(1), 1
    else:
        first = "\t" if ".tsv" in path.name.lower() else ","
        delimiter = _delimiter([line for line in lines if line.strip()], first)
    # Between commas a quoted "1,234" may be one thousand and more, or one and a fraction.
    possible = delimiter != "," or _DECIMAL_COMMA.search(text) is not None
    return _Dialect(encoding, delimiter, skipped, possible)


def _encoding(head: bytes, path: Path, packed: bool) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise DataError("this is no text, so no table of that kind: check what wrote it")
    for encoding in ("utf-8-sig", "cp1252"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for block in _blocks(path, packed):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _delimiter(lines: list[str], first: str) -> str:
    """What divides all of these lines into as many fields, of which most are numbers."""
    best, highest = first, (0.0, 1)
    for delimiter in (first, *(other for other in _DELIMITERS if other != first)):
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        counts = {len(row) for row in rows}
        if len(counts) != 1 or max(counts) == 1:
            continue
        fields = [field.strip() for row in rows[1:] for field in row]
        numbers = sum(_NUMBER.fullmatch(field) is not None for field in fields)
        score = (numbers / max(len(fields), 1), max(counts))
        if score > highest:
            best, highest = delimiter, score
    if highest[1] == 1 and lines:
        # No delimiter fits all lines, so the header decides, and the reader names the line.
        best = max((first, *_DELIMITERS), key=lines[0].count)
    return best


def _table(path: Path, packed: bool, dialect: _Dialect) -> tuple[Any, str]:
    """The table and its decimal mark: the one with which fewer columns are left as text."""
    table = _read(path, packed, dialect, ".")
    if dialect.decimal_comma and _texts(table):
        other = _read(path, packed, dialect, ",")
        if _texts(other) < _texts(table):
            return other, ","
    return table, "."


def _read(path: Path, packed: bool, dialect: _Dialect, decimal: str):
    import pyarrow.csv

    # The library takes what has a colon in it for an address, unless it is absolute.
    source: Any = path.absolute()
    if packed or not dialect.encoding.startswith("utf-8"):
        source = io.BytesIO()
        decoder = codecs.getincrementaldecoder(dialect.encoding)()
        for block in _blocks(path, packed):
            source.write(decoder.decode(block).encode())
        source.write(decoder.decode(b"", final=True).encode())
    try:
        with source if isinstance(source, io.BytesIO) else source.open("rb") as file:
            file.seek(0)
            header = [file.readline() for _ in range(dialect.lines + 1)][-1]
            # Room is made for a block of each column before a row is read.
            names = header.count(dialect.delimiter.encode()) + 1
            refuse_beyond(names * _COLUMN_BYTES, path.stat().st_size)
            file.seek(0)
            table = pyarrow.csv.read_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(skip_rows=dialect.lines),
                parse_options=pyarrow.csv.ParseOptions(delimiter=dialect.delimiter),
                convert_options=pyarrow.csv.ConvertOptions(decimal_point=decimal),
            )
            return table.rename_columns([name.strip() for name in table.column_names])
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"it is no table with columns separated by {_DELIMITERS[dialect.delimiter]} "
            f"({reason}): every line needs as many fields as the header; correct or remove the "
            "lines that have others"
        ) from None


def _texts(table) -> int:
    import pyarrow.types as types

    return sum(types.is_string(column.type) for column in table.columns)


def _blocks(path: Path, packed: bool) -> Iterator[bytes]:
    """The bytes of the table, unpacked, as long as they can honestly be in the file."""
    size, total = path.stat().st_size, 0
    try:
        with cast(IO[bytes], gzip.open(path) if packed else path.open("rb")) as file:
            while block := file.read(_BLOCK):
                total += len(block)
                if packed:
                    refuse_beyond(total, size)
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"this .gz file is truncated or corrupt ({error}): copy or download it again"
        ) from None
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror or error})") from None


class _TextTable(AbstractFormat):
    title = "CSV"
    suffixes = ()

    def recognises(self, place: Path, head: bytes) -> bool:
        name = place.name.lower()
        packed = head.startswith(b"\x1f\x8b")
        return bool(head) and name.endswith(_SUFFIXES) and packed == name.endswith(".gz")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_text_table(place, mapping, rows)


FORMATS = (_TextTable(),)
