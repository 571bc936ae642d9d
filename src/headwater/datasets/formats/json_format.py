"""JSON and JSON Lines: an object for each step, or for each episode."""

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.datasets.columns.roles import Mapping
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.table_format import open_batches
from headwater.datasets.formats.tables.packed import MAGIC, is_packed, unpacked
from headwater.datasets.metadata import remark_of_format

_LARGEST = 2**31 - 1
"""Bytes that the reader of lines takes at once."""
_DOCUMENTS = (".json", ".json.gz")
_OF_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_STEPS = ("steps", "transitions", "trajectory", "timesteps")
"""What an episode calls the list of its steps."""
_EPISODE = "episode_index"
_SPLIT = {"columns", "index", "data"}
"""What pandas calls the parts of a table that it splits."""
_POLICIES = "policy_batches."
"""What precedes the columns of a policy in RLlib's batches of several agents."""


def open_json(path: Path, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of about `rows`.

    A list of objects, an object that holds nothing but such a list, or a single object, which is
    an episode, are read as lines are. Objects within an object are columns `NAME.PART`. Raises
    `DataError` for what is no JSON, or no table.
    """
    blocks, size = [], 0
    for block in unpacked(path):
        blocks.append(block)
        size += len(block)
        if size > _LARGEST:
            raise DataError(
                "this JSON file is larger than 2 GiB: split it, or write Parquet instead"
            )
    text = b"".join(blocks).removeprefix(b"\xef\xbb\xbf")
    table = None if _is_document(path) else _lines(text)
    if table is None:
        table = _document(text)
    table, note = _steps_of_episodes(table)
    while any(_is_object(column.type) for column in table.columns):
        table = table.flatten()
    table = _of_one_policy(table)
    stored, chunks = open_batches(table.schema, iter(table.to_batches(rows)), mapping, table.column)
    if note:
        stored["metadata"] = remark_of_format(stored.get("metadata"), note)
    return stored, chunks


def _steps_of_episodes(table: Any) -> tuple[Any, str]:
    """The steps of all episodes, where each row is an episode that lists them as objects."""
    import pyarrow as arrow
    import pyarrow.types as types

    inner = [
        name
        for name in table.column_names
        if types.is_list(table.schema.field(name).type)
        and _is_object(table.schema.field(name).type.value_type)
    ]
    usual = [name for name in inner if name.lower() in _STEPS]
    if len(usual) != 1:
        return table, ""
    (name,) = usual
    lists = table.column(name).combine_chunks()
    compute: Any = importlib.import_module("pyarrow.compute")
    steps = arrow.Table.from_struct_array(compute.list_flatten(lists))
    if _EPISODE not in steps.column_names:
        steps = steps.append_column(_EPISODE, compute.list_parent_indices(lists))
    others = [other for other in table.column_names if other != name]
    left = f"; what else it has is left out: {', '.join(others)}" if others else ""
    return steps, f"each object is an episode, whose steps are those in its list '{name}'{left}"


def _of_one_policy(table: Any) -> Any:
    """The batch of the only policy in what RLlib writes of several agents.

    Raises `DataError` if there are several.
    """
    inside = [name for name in table.column_names if name.startswith(_POLICIES)]
    if not inside:
        return table
    policies = sorted({name.removeprefix(_POLICIES).split(".")[0] for name in inside})
    if len(policies) > 1:
        raise DataError(
            f"these are batches of {len(policies)} policies of RLlib ({', '.join(policies)}), "
            "which are several logs: write the batches of each policy to a file of its own"
        )
    prefix = f"{_POLICIES}{policies[0]}."
    return table.select(inside).rename_columns([name.removeprefix(prefix) for name in inside])


def _is_document(path: Path) -> bool:
    return path.name.lower().endswith(_DOCUMENTS)


def _lines(text: bytes) -> Any:
    """The table of a text with an object in each line; nothing if it begins as a list."""
    import pyarrow
    import pyarrow.json

    if text.lstrip(b" \t\r\n").startswith(b"["):
        return None
    try:
        return pyarrow.json.read_json(
            io.BytesIO(text),
            read_options=pyarrow.json.ReadOptions(block_size=max(len(text), 1)),
        )
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"it is no JSON Lines with an object of the same fields in every line ({reason}): "
            "correct the lines that differ"
        ) from None


def _document(text: bytes) -> Any:
    import pyarrow

    try:
        found = json_text.parse(text)
    except (ValueError, RecursionError):
        # An object in each line is what many call by this suffix too.
        lines = _lines(text)
        if lines is None:
            raise DataError("this is no JSON, or it is cut off: write it again") from None
        return lines
    if isinstance(found, dict):
        found = _of_pandas(found)
    if isinstance(found, dict):
        inner = [value for value in found.values() if _is_rows(value)]
        found = inner[0] if len(inner) == 1 else [found]
    if not _is_rows(found):
        raise DataError(
            "this JSON holds no table: give a list of objects, one for each step or each episode, "
            "with fields such as observations, actions and rewards"
        )
    try:
        return pyarrow.Table.from_pylist(found)
    except (pyarrow.ArrowException, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"the objects in this JSON are not alike ({reason}): every field needs the same kind "
            "of value in all of them"
        ) from None


def _of_pandas(found: dict[str, Any]) -> Any:
    """The rows of what `DataFrame.to_json` writes by default, by index, or split; else the same."""
    names, data = found.get("columns"), found.get("data")
    if isinstance(names, list) and isinstance(data, list) and set(found) <= _SPLIT:
        if not all(isinstance(row, list) and len(row) == len(names) for row in data):
            return found
        return [dict(zip(map(str, names), row, strict=True)) for row in data]
    columns = list(found.values())
    if len(columns) < 2 or not all(isinstance(column, dict) for column in columns):
        return found
    if all(name.isdecimal() for name in found) and all(map(_same_keys(columns[0]), columns)):
        return columns
    index = list(columns[0])
    if all(name.isdecimal() for name in index) and all(map(_same_keys(columns[0]), columns)):
        return [{name: column[row] for name, column in found.items()} for row in index]
    return found


def _same_keys(first: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    return lambda other: other.keys() == first.keys()


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _is_object(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_struct(kind)


class _Json(AbstractFormat):
    title = "JSON"
    suffixes = ()

    def recognises(self, place: Path, head: bytes) -> bool:
        if not place.name.lower().endswith(_DOCUMENTS + _OF_LINES):
            return False
        if is_packed(place):
            return head.startswith(MAGIC)
        return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_json(place, mapping, rows)


FORMATS = (_Json(),)
