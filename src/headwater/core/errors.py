"""Errors written for the person who reads them."""

import difflib
from collections.abc import Iterable


class HeadwaterError(Exception):
    """Something the user can mend: the message says what, where and how."""


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
    question = "did you mean" if close else f"known {kind}s are"
    return f"unknown {kind} '{name}': {question} {hint}{'?' if close else '.'}"
