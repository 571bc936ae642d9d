"""The fields of a row of texts: their roles, what they must hold, and where they stand."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headwater.core.errors import DataError, nearest
from headwater.texts.rows import stored_rows
from headwater.texts.tokenizers import ROLES

Columns = Mapping[str, str]
"""From `prompt`, `completion`, `chosen`, `rejected`, `text`, `messages`, `reward` or `label` to
the name of the column that holds it, where that is another one."""

_NOT_HONOURED = {
    **{"tools": "tools", "margin": "margins of preferences"},
    **{"images": "pictures", "image": "a picture"},
}
"""Columns that TRL reads and that are not read here, and what they hold."""

_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
"""ShareGPT's names of roles."""

_COLUMNS = ("prompt", "completion", "chosen", "rejected", "text", "messages", "reward", "label")


class Row(NamedTuple):
    """One row of a file, which says where it is when it complains."""

    path: Path
    number: int
    fields: dict[str, Any]

    def error(self, sentence: str) -> DataError:
        """What is wrong with the row, said with its place; to be raised."""
        return DataError(f"{self.path}, row {self.number}: {sentence}")

    def missing(self, name: str, need: str) -> DataError:
        """That there is no column `name`, with the nearest; `need` begins the sentence."""
        free = [field for field in self.fields if field not in _COLUMNS]
        if not free:
            return DataError(f"{self.path}: {need}and there is no column '{name}'")
        known = nearest(name, free, "column").removeprefix(f"unknown column '{name}': ")
        return DataError(
            f"{self.path}: {need}and there is no column '{name}' ({known.rstrip('.')}): rename the "
            f"one that it is, or say so with --columns {name}=… (columns={{'{name}': …}} in Python)"
        )

    def given(self, name: str) -> Any:
        """The field called `name`. Raises `DataError` if it is empty."""
        if self.fields.get(name) is None:
            raise self.error(f"'{name}' is missing: fill it, or remove the row")
        return self.fields[name]

    def text(self, name: str) -> str:
        """A field that is a text. Raises `DataError` for another kind."""
        value = self.given(name)
        if not isinstance(value, str):
            raise self.error(f"'{name}' must be a text or a list of messages, not {kind_of(value)}")
        return value

    def messages(self, name: str, value: Any = None) -> list[dict[str, str]]:
        """The field, or `value`, as messages with a known role and a text. Raises `DataError`."""
        value = self.given(name) if value is None else value
        if not isinstance(value, list):
            raise self.error(f"'{name}' must be a list of messages, not {kind_of(value)}")
        if not value:
            raise self.error(f"'{name}' holds no message")
        return [
            self.message(message, f"message {number} of '{name}'")
            for number, message in enumerate(value, 1)
        ]

    def message(self, message: Any, where: str) -> dict[str, str]:
        """One message, checked; `where` says which for the `DataError` that it raises."""
        if not isinstance(message, dict):
            raise self.error(f"{where} must have a 'role' and a 'content'")
        if "from" in message and "role" not in message:
            # As in ShareGPT's conversations.
            speaker = str(message["from"])
            message = {"role": _SPEAKERS.get(speaker, speaker), "content": message.get("value")}
        role = message.get("role")
        if role is None:
            raise self.error(f"{where} has no 'role': say who speaks ({', '.join(ROLES)})")
        if role not in ROLES:
            raise self.error(f"{where}: {nearest(str(role), ROLES, 'role')}")
        if message.get("tool_calls"):
            raise self.error(
                f"{where} calls tools, which is not learned from yet: write the call into its "
                "'content', or remove the row"
            )
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            texts = [part for part in parts if isinstance(part, str)]
            if len(texts) < len(content):
                raise self.error(f"the 'content' of {where} has a part that is not a text")
            content = "".join(texts)
        if not isinstance(content, str):
            raise self.error(f"the 'content' of {where} must be a text")
        # Tables of messages hold null where a message lacks a field of another.
        others = {name: value for name, value in message.items() if value is not None}
        return {**others, "content": content}

    def label(self) -> bool:
        """Whether the row is labelled desirable. Raises `DataError` for what is no label."""
        value = self.given("label")
        # Tables of text (CSV) hold labels as texts, and some hold numbers.
        known = {"true": True, "1": True, "false": False, "0": False}
        # A column of numbers with gaps makes them floats.
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(value, bool | int | str) and str(value).lower() in known:
            return known[str(value).lower()]
        raise self.error(
            f"'label' must be true (desirable) or false (undesirable), not {str(value)[:40]}"
        )

    def finite(self, name: str) -> float:
        """A field that is a finite number. Raises `DataError` for anything else."""
        value = self.fields.get(name)
        # Tables of text (CSV) hold numbers as texts.
        given = isinstance(value, int | float | str) and not isinstance(value, bool)
        try:
            number = float(value) if given and value is not None else math.nan
        except (OverflowError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"'{name}' must be a finite number, not {str(value)[:40]}")
        return number


def kind_of(value: Any) -> str:
    """What a value is, in words for messages."""
    kinds = {
        **{list: "a list", dict: "an object", bool: "true or false", int: "a number"},
        **{float: "a number", str: "a text", bytes: "bytes"},
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


def checked_rows(path: Path, columns: Columns | None) -> Iterator[Row]:
    """Every row, its columns named by their roles."""
    names = {column: role for role, column in (columns or {}).items()}
    for role in columns or {}:
        if role not in _COLUMNS:
            raise DataError(nearest(role, _COLUMNS, "column of texts"))
    if len(names) < len(columns or {}):
        raise DataError("columns: one column cannot hold two things: name each once")
    found = 0
    for number, fields in stored_rows(path):
        found += 1
        for column in names:
            if column not in fields and found == 1:
                raise DataError(f"{path}: {nearest(column, fields, 'column')}")
        # A column that is called like a role which another one has is none of ours.
        renamed = {
            names.get(key, key): value
            for key, value in fields.items()
            if key in names or key not in (columns or {})
        }
        if "reward" not in renamed and "score" in renamed:
            renamed["reward"] = renamed["score"]
        if "messages" not in renamed and "conversations" in renamed:
            renamed["messages"] = renamed["conversations"]
        for name, what in _NOT_HONOURED.items():
            if renamed.get(name):
                raise DataError(
                    f"{path}, row {number}: the column '{name}' holds {what}, which cannot be "
                    "honoured yet: remove the column to learn without"
                )
        yield Row(path, number, renamed)
    if not found:
        raise DataError(f"{path}: there are no rows in it")
