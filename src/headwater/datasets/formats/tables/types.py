"""Columns of Arrow in the few types that are read: what a table keeps otherwise, cast to them."""

from collections.abc import Collection, Iterator
from typing import Any

from headwater.core.errors import DataError


def plain(batches: Iterator[Any], names: Collection[str]) -> Iterator[Any]:
    """The batches with the columns `names` in plain types; the others as they are.

    Raises `DataError` for what cannot be cast.
    """
    for batch in batches:
        for place, name in enumerate(batch.schema.names):
            if name in names:
                held = batch.column(place)
                found = plain_column(held, name)
                if found is not held:
                    batch = batch.set_column(place, name, found)
        yield batch


def plain_column(values: Any, name: str) -> Any:
    """A column with texts as strings, exact decimals as floats, and lists as lists of these.

    Codes of a dictionary become what they stand for, and tensors of an extension type lists.
    Raises `DataError`, with the name of the column, for what cannot be cast.
    """
    import pyarrow as arrow

    kind = _plain(values.type)
    if kind == values.type:
        return values
    try:
        if "list_view" in str(values.type):
            # The cast of these reads beyond the last row.
            return arrow.array(values.to_pylist(), kind)
        return values.cast(kind)
    except arrow.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"column '{name}' of type {values.type} cannot be read as {kind} ({reason}): write it "
            "as numbers or lists of numbers"
        ) from None


def _plain(kind: Any) -> Any:
    import pyarrow as arrow
    import pyarrow.types as types

    if isinstance(kind, arrow.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_decimal(kind):
        return arrow.float64()
    if types.is_large_string(kind) or types.is_string_view(kind):
        return arrow.string()
    if types.is_fixed_size_list(kind):
        inner = _plain(kind.value_type)
        return kind if inner == kind.value_type else arrow.list_(inner, kind.list_size)
    large = types.is_large_list(kind) or types.is_large_list_view(kind)
    if large or types.is_list(kind) or types.is_list_view(kind):
        inner = _plain(kind.value_type)
        if inner == kind.value_type and (types.is_list(kind) or types.is_large_list(kind)):
            return kind
        return arrow.large_list(inner) if large else arrow.list_(inner)
    return kind
