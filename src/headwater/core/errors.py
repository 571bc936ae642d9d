"""Errors written for the person who reads them."""

import difflib
from collections.abc import Iterable

_LONGEST = 2_000
"""Characters of a message; names in a damaged file may have any length."""


class HeadwaterError(Exception):
    """Something the user can mend: the message says what, where and how.

    It is one line that every terminal can show, whatever the names in a file that it quotes.
    """

    def __str__(self) -> str:
        text = printable(Exception.__str__(self))
        return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def printable(text: str) -> str:
    """`text` as one line that does to a terminal nothing but show itself."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return " " if character.isspace() else ascii(character)[1:-1]


class DataError(HeadwaterError):
    """A dataset cannot be read or does not hold what it claims."""


class SpecificationError(HeadwaterError):
    """A name, option or combination that does not exist or does not fit."""


class RunError(HeadwaterError):
    """A run directory cannot be created, read or continued."""


class Diverged(HeadwaterError):
    """Training produced a number that is not finite, or a value out of all proportion."""


def nearest(name: str, known: Iterable[str], kind: str) -> str:
    """One sentence for an unknown `name`: the nearest known names of that `kind`."""
    known = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    hint = ", ".join(lowered[candidate] for candidate in close) if close else ", ".join(known)
    what, of, whose = kind.partition(" of ")
    question = "did you mean" if close else f"known {what}s{of}{whose} are"
    return f"unknown {kind} '{name}': {question} {hint}{'?' if close else '.'}"
