"""JSON from a file that may have been damaged, or written by somebody else."""

import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any


def parse(text: str | bytes) -> Any:
    """The value that `text` stands for: numbers, texts, lists and tables, never an object.

    Raises `ValueError`, whatever is wrong with it: also where a table has a key twice, it is nested
    beyond any use, is not UTF-8, or holds halves of characters, which no file can be written with.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        found = json.loads(text, object_pairs_hook=_table)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
        else:
            text.encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"the key {twice[:40]!r} stands there twice")
    return found


def fits(value: Any, hint: Any) -> bool:
    """Whether a value that JSON can hold is of the type `hint`, as of a field of a dataclass.

    Numbers must be finite, and whole numbers fit into 64 bits. Types that are no plain values fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if hint is None or hint is type(None):
        return value is None
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(v, arguments[0]) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(v, arguments[1]) for v in value.values())
    if origin is typing.Literal:
        return value in arguments
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < 2**1000 and math.isfinite(value)
    if hint in (bool, str):
        return isinstance(value, hint)
    return True
