"""Tables as text: CSV in the dialects that tools and countries write, also compressed."""

import codecs
import csv
import importlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

from headwater.core.errors import DataError
from headwater.core.stored_size import refuse_beyond
from headwater.datasets.columns.roles import Mapping
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.table_format import open_batches
from headwater.datasets.formats.tables.cells import with_lists
from headwater.datasets.formats.tables.packed import MAGIC, is_packed, unpacked
from headwater.datasets.metadata import remark_of_format

_COLUMN_BYTES = 8_192
"""That the reader of CSV reserves for a column."""
_SAMPLE = 2**16
"""Bytes from the beginning by which the dialect is told."""
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SPACES = " "
"""Any number of them, as of aligned columns: tried where nothing else divides the lines."""
_NAMES = {**_DELIMITERS, _SPACES: "spaces"}
_NUMBER = re.compile(r"[+-]?[0-9]*[.,]?[0-9]*([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r'"[+-]?(0,[0-9]+|[0-9]*,([0-9]{1,2}|[0-9]{4,}))"')
"""A quoted number whose comma divides no thousands, since other than three digits follow it, or
nothing but zero precedes it."""
_DIVIDING = (" ", "\u00a0", "\u202f", "'", "’")
"""Marks between thousands that divide nothing else in a number."""
_REMARK = re.compile(r"\s*(#|%|//)")
_MOST_TITLES = 20
"""Lines of other fields that may stand above a header."""
_MISSING = frozenset(
    ("nan", "na", "n/a", "null", "none", "inf", "-inf", "missing", "true", "false")
)
"""Words in the place of a number that are no units."""
_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_OTHERS = (".txt", ".dat", ".data", ".log")
"""What tables as text are also called, if their content is one."""


class _Dialect(NamedTuple):
    """How the text is written.

    **Arguments:** `encoding`: Python's name; `delimiter`; `lines`: to skip before the header;
    `above`: the first of them that says something; `units`: the line under the header, if it is no
    row but tells units; `under`: lines to skip for it; `decimal_comma`: whether the decimal mark
    may be one.
    """

    encoding: str
    delimiter: str
    lines: int
    above: str
    units: str
    under: int
    decimal_comma: bool


def open_text_table(path: Path, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of about `rows`.

    The encoding, the delimiter, the decimal mark, the header's line and a line of units under it
    are told from the content; what was found other than UTF-8, commas, points and a header at the
    top is said in the metadata. Raises `DataError` for what is no table.
    """
    dialect = _dialect(path)
    table, decimal, grouped = _table(path, dialect)
    _refuse_values_as_names(table.column_names)
    lists: list[str] = []
    if decimal == ".":
        table, lists = with_lists(table)
    stored, chunks = open_batches(table.schema, iter(table.to_batches(rows)), mapping, table.column)
    found = [
        f"text in {dialect.encoding}" if not dialect.encoding.startswith("utf-8") else "",
        f"columns separated by {_NAMES[dialect.delimiter]}" * (dialect.delimiter != ","),
        "decimal commas" * (decimal == ","),
        f"thousands divided in {', '.join(grouped)}" if grouped else "",
    ]
    notes = []
    if any(found):
        notes.append(f"the text table was read as {', '.join(part for part in found if part)}")
    if dialect.above:
        count = "1 line" if dialect.lines == 1 else f"{dialect.lines} lines"
        notes.append(f"{count} above the header left out, from {_short(dialect.above)} on")
    if dialect.units:
        notes.append(f"the line under the header is no row but units: {_short(dialect.units)}")
    if lists:
        notes.append(f"lists written as text: {', '.join(lists)}")
    if notes:
        stored["metadata"] = remark_of_format(stored.get("metadata"), *notes)
    return stored, chunks


def _refuse_values_as_names(names: list[str]) -> None:
    """Raises `DataError` if the names of columns are a row, as where a table has no header.

    Numbers from 0 on are names: pandas gives them to columns that have none.
    """
    named = [name for name in names if name.strip()]
    if named == [str(place) for place in range(len(named))]:
        return
    values = sum(_is_number(name) or name.lower() in _MISSING for name in named)
    if 2 * values > len(names):
        raise DataError(
            f"the table has no header: its first line holds values ({_short(', '.join(names))}) "
            "and no names of columns; write a line of names above it"
        )


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:60] + " …")


def _dialect(path: Path) -> _Dialect:
    head = b""
    for block in unpacked(path):
        head += block
        if len(head) >= _SAMPLE:
            break
    encoding = _encoding(head, path)
    # What is cut off at the end of the sample is no character, nor a row.
    text = head[:_SAMPLE].decode(encoding, "ignore")
    lines = text.splitlines()
    if len(head) >= _SAMPLE and len(lines) > 1:
        lines = lines[:-1]
    declared = re.fullmatch(r"sep=(.)", lines[0].strip("\ufeff ")) if lines else None
    above = ""
    if declared and declared.group(1) in _DELIMITERS:
        delimiter, header = declared.group(1), 1
    else:
        first = "\t" if ".tsv" in path.name.lower() else ","
        delimiter, header = _header(lines, first)
        above = next((line.strip("\ufeff ") for line in lines[:header] if line.strip()), "")
    # Between commas a quoted "1,234" may be one thousand and more, or one and a fraction.
    possible = delimiter != "," or _DECIMAL_COMMA.search(text) is not None
    below = lines[header + 1 :]
    units = _units(below, delimiter)
    under = below.index(units) + 1 if units else 0
    return _Dialect(encoding, delimiter, header, above, units, under, possible)


def _is_table(head: bytes) -> bool:
    """Whether text begins with lines of as many fields each, most of them numbers."""
    if b"\0" in head:
        return False
    # The last line may be cut.
    lines = head.decode("latin-1").splitlines()[:-1]
    lines = [line for line in lines if line.strip() and not _REMARK.match(line)]
    delimiter = _delimiter(lines, ",") if len(lines) > 1 else None
    if delimiter is None:
        return False
    _, *rows = _rows(lines, delimiter)
    fields = [field for row in rows for field in row]
    return sum(map(_is_number, fields)) * 2 > len(fields)


def _encoding(head: bytes, path: Path) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise DataError("this is no text, so no table of that kind: check what wrote it")
    for encoding in ("utf-8-sig", "cp1252"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for block in unpacked(path):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _header(lines: list[str], first: str) -> tuple[str, int]:
    """The delimiter, and the number of the line that holds the names of the columns.

    Above it may stand remarks, which begin with a sign for them, and lines that no delimiter
    divides as it divides all others, such as a title. A remark of as many names as the rows have
    fields, above numbers, is the header itself.
    """
    begin = 0
    while begin < len(lines) and (not lines[begin].strip() or _REMARK.match(lines[begin])):
        begin += 1
    for number in range(begin, min(begin + _MOST_TITLES, len(lines))):
        rest = [line for line in lines[number:] if line.strip()]
        if not lines[number].strip():
            continue
        delimiter = _delimiter(rest, first)
        if delimiter is None:
            continue
        names, *rows = _rows(rest, delimiter)
        named = not any(_is_number(name) or not name.strip() for name in names)
        if number == begin:
            remark = _REMARK.sub("", lines[begin - 1], count=1) if begin else ""
            above = next(iter(_rows([remark], delimiter)), [])
            if not named and len(above) == len(names) and not any(map(_is_number, above)):
                return delimiter, begin - 1
            return delimiter, begin
        # Rows may have a field more than the header, of numbers of rows: that is no title.
        if named and any(map(_is_number, rows[0] if rows else [])):
            return delimiter, number
    # No delimiter fits all lines, so the header decides, and the reader names the line.
    begin = min(begin, max(len(lines) - 1, 0))
    return max((first, *_DELIMITERS), key=lines[begin].count if lines else len), begin


def _is_number(field: str) -> bool:
    return bool(field.strip()) and _NUMBER.fullmatch(field.strip()) is not None


def _delimiter(lines: list[str], first: str) -> str | None:
    """What divides all of these lines into as many fields, of which most are numbers."""
    best, highest = None, (0.0, 1)
    for delimiter in (first, *(other for other in _DELIMITERS if other != first), _SPACES):
        if delimiter == _SPACES and best is not None:
            break  # As in `2024-01-01 10:00, 0.5`.
        try:
            rows = _rows(lines, delimiter)
        except csv.Error:
            continue
        counts = {len(row) for row in rows}
        if len(counts) != 1 or max(counts) == 1:
            continue
        fields = [field for row in rows[1:] for field in row]
        score = (sum(map(_is_number, fields)) / max(len(fields), 1), max(counts))
        # Words of a sentence have spaces between them as well.
        if score > highest and (delimiter != _SPACES or 2 * score[0] > 1):
            best, highest = delimiter, score
    return best


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    """The fields of each line. Raises `csv.Error` for what cannot be divided."""
    if delimiter == _SPACES:
        lines = [_with_single_spaces(line) for line in lines]
    return list(csv.reader(lines, delimiter=delimiter))


def _with_single_spaces(text: str) -> str:
    """Text with one space in the place of several or tabs, but in quotes, and none at the edges of
    a line."""
    parts = text.split('"')
    parts[::2] = [re.sub(r"[ \t]+", " ", part) for part in parts[::2]]
    return re.sub(r"(?m)^ +| +$", "", '"'.join(parts))


def _units(lines: list[str], delimiter: str) -> str:
    """The first of these lines if it says units where all others have numbers, else nothing."""
    lines = [line for line in lines if line.strip()]
    try:
        rows = _rows(lines, delimiter)
    except csv.Error:
        return ""
    if len(rows) < 2 or len({len(row) for row in rows}) != 1:
        return ""
    first, *others = rows
    numbers = [all(_is_number(row[i]) for row in others) for i in range(len(first))]
    said = [field.strip() for field, number in zip(first, numbers) if number]
    words = [field for field in said if field.strip("-")]
    if not words or any(_is_number(word) or word.lower() in _MISSING for word in words):
        return ""
    return lines[0]


def _table(path: Path, dialect: _Dialect) -> tuple[Any, str, list[str]]:
    """The table, its decimal mark, the one with which fewer columns are left as text, and the
    columns whose numbers have marks between thousands."""
    table, grouped = _ungrouped(_read(path, dialect, "."), ",", ".")
    if dialect.decimal_comma and _texts(table):
        other, others = _ungrouped(_read(path, dialect, ","), ".", ",")
        if _texts(other) < _texts(table):
            return other, ",", others
    return table, ".", grouped


def _ungrouped(table, group: str, decimal: str) -> tuple[Any, list[str]]:
    """The table with numbers where texts are numbers divided by `group`, a space or an apostrophe,
    and the names of these columns."""
    names: list[str] = []
    for mark in (group, *_DIVIDING):
        if not _texts(table):
            break
        table, found = _grouped(table, mark, decimal)
        names += found
    return table, names


def _grouped(table, group: str, decimal: str) -> tuple[Any, list[str]]:
    """The table with numbers where texts are numbers with marks between thousands.

    One of a column's numbers must have two such marks, or one beside a decimal mark: `1,234` alone
    may be one and a fraction. Spaces and apostrophes are no decimal marks, so one suffices.
    """
    import pyarrow as pa
    import pyarrow.types as types

    pc: Any = importlib.import_module("pyarrow.compute")  # whose functions are made at run time
    g, d = re.escape(group), re.escape(decimal)
    whole = rf"[+-]?([1-9][0-9]{{0,2}}({g}[0-9]{{3}})+|[0-9]+)"
    if group in _DIVIDING:
        certain = rf"[0-9]{g}[0-9]{{3}}"
    else:
        certain = rf"^\s*[+-]?[1-9][0-9]{{0,2}}(({g}[0-9]{{3}}){{2,}}|{g}[0-9]{{3}}{d}[0-9]*)"
    found = []
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if not types.is_string(column.type):
            continue
        if not pc.all(pc.match_substring_regex(column, rf"^\s*{whole}({d}[0-9]*)?\s*$")).as_py():
            continue
        if not pc.any(pc.match_substring_regex(column, certain)).as_py():
            continue
        plain = pc.utf8_trim_whitespace(pc.replace_substring(column, group, ""))
        values = pc.cast(pc.replace_substring(plain, decimal, "."), pa.float64())
        table = table.set_column(place, name, values)
        found.append(name)
    return table, found


def _read(path: Path, dialect: _Dialect, decimal: str):
    import pyarrow.csv

    # The library takes what has a colon in it for an address, unless it is absolute.
    source: Any = path.absolute()
    spaces = dialect.delimiter == _SPACES
    if is_packed(path) or spaces or not dialect.encoding.startswith("utf-8"):
        source = io.BytesIO()
        decoder = codecs.getincrementaldecoder(dialect.encoding)()
        for block in unpacked(path):
            source.write(decoder.decode(block).encode())
        source.write(decoder.decode(b"", final=True).encode())
        if spaces:
            text = source.getvalue().decode().replace("\r\n", "\n")
            lines = _with_single_spaces(text).split("\n")
            # A sign for a remark is no name.
            lines[dialect.lines] = re.sub(r"^[#%] ", "", lines[dialect.lines])
            source = io.BytesIO("\n".join(lines).encode())
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
                read_options=pyarrow.csv.ReadOptions(
                    skip_rows=dialect.lines, skip_rows_after_names=dialect.under
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=dialect.delimiter),
                convert_options=pyarrow.csv.ConvertOptions(decimal_point=decimal),
            )
            names = [name.strip() for name in table.column_names]
            if names:
                # As NumPy writes a header; `#id` is a name.
                names[0] = re.sub(r"^[#%]\s+(?=\S)", "", names[0])
            return table.rename_columns(names)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"it is no table with columns separated by {_NAMES[dialect.delimiter]} "
            f"({reason}): every line needs as many fields as the header; correct or remove the "
            "lines that have others"
        ) from None


def _texts(table) -> int:
    import pyarrow.types as types

    return sum(types.is_string(column.type) for column in table.columns)


class _TextTable(AbstractFormat):
    title = "CSV"
    suffixes = ()

    def recognises(self, place: Path, head: bytes) -> bool:
        name = place.name.lower()
        packed = head.startswith(MAGIC)
        if name.endswith(_SUFFIXES):
            return bool(head) and packed == is_packed(place)
        # Of a directory there is no head.
        if packed or not head or not name.endswith(_OTHERS):
            return False
        with place.open("rb") as file:
            return _is_table(file.read(_SAMPLE))

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_text_table(place, mapping, rows)


FORMATS = (_TextTable(),)
