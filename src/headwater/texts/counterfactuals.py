"""Texts in which the words for groups of people are exchanged: counterfactual augmentation."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from headwater.core.errors import SpecificationError
from headwater.texts.rows import Fields

_TEXTS = ("prompt", "completion", "chosen", "rejected", "text", "messages", "conversations")
"""Columns whose texts are changed."""
_SAID = ("content", "value")
"""What a message says, in its two forms."""


class WordExchange:
    """Exchanges words for groups by those for other groups, in whole words and any case.

    **Arguments:** `sets`: of words, one for each group, in one order of groups: `("he", "she")` and
    `("actor", "actress")`; or, of three groups, `("church", "mosque", "temple")`. A word may have
    spaces. Raises `SpecificationError` for no set, one of fewer than two words, an empty word, or a
    word that comes twice.
    """

    def __init__(self, sets: Sequence[Sequence[str]]):
        self.sets = tuple(tuple(word.strip().lower() for word in each) for each in sets)
        if not self.sets:
            raise SpecificationError("name the words to exchange: he=she, for example")
        self._place: dict[str, tuple[int, int]] = {}
        for number, words in enumerate(self.sets):
            shown = "=".join(words)
            if len(words) < 2 or not all(words):
                raise SpecificationError(
                    f"'{shown}' is no set of words to exchange: give a word for each of two or "
                    "more groups, as in he=she"
                )
            for group, word in enumerate(words):
                if word in self._place:
                    raise SpecificationError(
                        f"the word '{word}' is to be exchanged twice, in '{shown}' and before: "
                        "nobody could say for which one; leave one of them out"
                    )
                self._place[word] = (number, group)
        # The longest first, so that no word hides another that begins with it.
        words = sorted(self._place, key=len, reverse=True)
        pattern = "|".join(re.escape(word) for word in words)
        self._pattern = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)

    def exchanged(self, text: str, turn: Sequence[int]) -> str:
        """The text with each word replaced by that of the group so many places further.

        **Arguments:** `turn`: for each set, from one to the number of its groups less one.
        """

        def other(found: re.Match[str]) -> str:
            word = found.group()
            number, group = self._place[word.lower()]
            words = self.sets[number]
            return _in_case_of(word, words[(group + turn[number]) % len(words)])

        return self._pattern.sub(other, text)

    def turns(self, generator: np.random.Generator) -> tuple[int, ...]:
        """How many places further to go in each set; the same in all of one size.

        So several words of one text go on naming one group. Of two groups it is always the other.
        """
        sizes = sorted({len(words) for words in self.sets})
        drawn = {size: int(generator.integers(1, size)) for size in sizes}
        return tuple(drawn[len(words)] for words in self.sets)


def _in_case_of(word: str, other: str) -> str:
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


def with_counterfactuals(
    rows: Iterable[Fields],
    exchange: WordExchange,
    generator: np.random.Generator,
    columns: Sequence[str] = (),
) -> Iterator[tuple[Fields, bool]]:
    """Each row, and after it the same with other groups where it has a word for one.

    Prompts, responses, texts and messages are changed together; labels and rewards stay.

    **Arguments:** `columns`: that hold texts, beside those that are called as TRL calls them.

    **Returns:** rows, and whether they are counterfactual.
    """
    names = {*_TEXTS, *columns}
    for fields in rows:
        yield fields, False
        turn = exchange.turns(generator)
        changed = {
            name: _changed(value, exchange, turn) if name in names else value
            for name, value in fields.items()
        }
        if changed != fields:
            yield changed, True


def _changed(value: Any, exchange: WordExchange, turn: Sequence[int]) -> Any:
    if isinstance(value, str):
        return exchange.exchanged(value, turn)
    if isinstance(value, list):
        return [_changed(each, exchange, turn) for each in value]
    if isinstance(value, dict):
        # A message: who speaks stays. Its content may have parts.
        return {
            key: _changed(each, exchange, turn) if key in (*_SAID, "text") else each
            for key, each in value.items()
        }
    return value
