"""Cells of tables that are no plain numbers: lists as text, words, and what to do about others."""

import importlib
import re
from typing import Any

import numpy as np

from headwater.core.errors import DataError

FLAGS = {
    "yes": True, "no": False, "y": True, "n": False, "true": True, "false": False,
    "t": True, "f": False, "on": True, "off": False,
    # As spreadsheets write them in other languages.
    "wahr": True, "falsch": False, "vrai": True, "faux": False, "verdadero": True, "falso": False,
    "vero": True, "verdadeiro": True, "waar": True, "onwaar": False, "sant": True, "falskt": False,
    "ja": True, "nein": False, "nee": False, "oui": True, "non": False,
}  # fmt: skip
"""What flags are written as, where they are no numbers, in lower case."""
MOST_WORDS = 1_000
"""Different words of a column of actions that are numbered; more are no finite set of actions."""

_LIST = r"^\s*[\[(][-+0-9.eE,\s]*[\])]\s*$"
_GROUPED = re.compile(r"\s*[+-]?[0-9]{1,3}([,.'’ \u00a0\u202f][0-9]{3})+([,.][0-9]*)?\s*")


def with_lists(table: Any) -> tuple[Any, list[str]]:
    """The table with lists where texts such as `[0.1, -2]` or `[0.1 -2]` are, and their columns."""
    import pyarrow as arrow
    import pyarrow.types as types

    compute: Any = importlib.import_module("pyarrow.compute")
    found = []
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if not types.is_string(column.type) or not len(column) or column.null_count:
            continue
        if not compute.all(compute.match_substring_regex(column, _LIST)).as_py():
            continue
        texts = column.to_pylist()
        parts = [re.sub(r"[\[\](),]", " ", text).split() for text in texts]
        try:
            flat = np.array([part for parts_of_row in parts for part in parts_of_row], np.float64)
        except ValueError:
            continue
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in parts])]).astype(np.int32)
        lists = arrow.ListArray.from_arrays(offsets, arrow.array(flat))
        table = table.set_column(place, name, lists)
        found.append(name)
    return table, found


def action_words(known: list[Any]) -> list[str] | None:
    """The words that a column of actions holds, in order, if it holds nothing but words.

    **Arguments:** `known`: what occurs in the column. Flags and numbers are no words.
    """
    if not known or len(known) > MOST_WORDS or not all(isinstance(word, str) for word in known):
        return None
    if any(not word.strip() or is_number(word) or word.strip()[:1] in "[(" for word in known):
        return None
    if any(_GROUPED.fullmatch(word) or re.search(r"[0-9][%€$£]", word) for word in known):
        return None
    if all(word.strip().lower() in FLAGS for word in known):
        return None
    return sorted(known)


def words_note(name: str, words: list[str]) -> str:
    """In which order the words of the column `name` were numbered."""
    shown = [f"{number} is '{word[:40]}'" for number, word in enumerate(words[:30])]
    more = f" and {len(words) - 30:,} more" if len(words) > 30 else ""
    alike: dict[str, str] = {}
    doubt = ""
    for word in words:
        other = alike.setdefault(" ".join(word.lower().split()), word)
        if other != word:
            doubt = (
                f"; '{other}' and '{word}' differ in capitals or spaces alone and count as two "
                "actions: write them alike if they are one"
            )
            break
    return f"the actions in '{name}' are words, numbered in order: {', '.join(shown)}{more}{doubt}"


def numbered(values: Any, words: list[str]) -> Any:
    """An Arrow column of words as their numbers; what is empty stays so."""
    import pyarrow as arrow

    compute: Any = importlib.import_module("pyarrow.compute")
    return compute.index_in(values.cast(arrow.string()), value_set=arrow.array(words))


def no_number(name: str, text: str, row: int) -> DataError:
    """What to say of a column that holds `text` at `row`, and no number."""
    if text == name:
        return DataError(
            f"the header stands again at row {row}, as where files were put one after the other: "
            "give the files separately, as a list or a pattern, or remove that line"
        )
    if text.startswith("BCJNGGhA"):
        return DataError(
            f"column '{name}' is packed (LZ4), as RLlib writes it by default: write the data again "
            "with output_compress_columns=[]"
        )
    if text.strip()[:1] in ("[", "(", "{"):
        remedy = "it is a list as text; give each component a column of its own"
    elif _GROUPED.fullmatch(text):
        remedy = (
            "the mark may be between thousands or a decimal one; write plain numbers, with a point"
        )
    elif re.search("[0-9]", text):
        remedy = (
            "write plain numbers, without units and signs such as % or €, or map another column"
        )
    else:
        remedy = "convert it, or map another column"
    return DataError(
        f"column '{name}' has type string, which is not a number (it holds '{text[:40]}' at row "
        f"{row}): {remedy}"
    )


def is_number(text: str) -> bool:
    """Whether Python reads it as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
