"""The contract that every method keeps, as one call."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod
from headwater.testing.checks.applicable import checks_for
from headwater.testing.checks.case import Case
from headwater.testing.checks.every_method import check_every_number_matters
from headwater.testing.exceptions import EXPECTED
from headwater.testing.kinds.declared import kinds_for
from headwater.testing.sizes import small

_LONGEST = 600
"""Characters that are shown of one reason."""


class Outcome(NamedTuple):
    """What one check said of a method.

    **Arguments:** `kind`: of data; `check`: its name; `note`: empty if the method passed, else why
    the check says nothing about it or why it may fail.
    """

    kind: str
    check: str
    note: str


class Report(NamedTuple):
    """What was checked of a method that keeps the contract; as text, one line for each check."""

    method: str
    outcomes: tuple[Outcome, ...]

    def __str__(self) -> str:
        lines = [f"{self.method} keeps the contract:"]
        for kind, check, note in self.outcomes:
            lines.append(f"  {kind}: {check}" + (f" ({note})" if note else ""))
        return "\n".join(lines)


def check_method(method: type[AbstractMethod] | AbstractMethod) -> Report:
    """Runs every check that applies to a method, on every kind of data that it takes.

    Among other things: that the state is arrays only, that a compiled run equals the Python loop,
    that seeds and numbers can be swept with `vmap`, that a saved run continues to the bit, that
    degenerate data leave everything finite, that nothing behind the end of an episode is read, that
    every number changes something, and that misspelt options are refused. Data are made up; it
    takes from a few seconds to a minute.

    **Arguments:** `method`: a class, whose networks are made small, or an instance, taken as it is.

    Raises `AssertionError` with one sentence for each check that fails: which one, on what data,
    and the reason. Raises `SpecificationError` if the method takes no kind of data that is known.
    """
    if not __debug__:
        raise SpecificationError("check_method needs Python's assertions: run Python without -O")
    name = method.__name__ if isinstance(method, type) else type(method).__name__
    given = small(method) if isinstance(method, type) else method
    kinds = kinds_for(type(given))
    if not kinds:
        raise SpecificationError(
            f"{name} refuses every problem that headwater.testing knows: add one to "
            "headwater/testing/kinds"
        )
    cases = [Case(given, kind) for kind in kinds]
    work: list[tuple[str, str, Callable[[], Any]]] = []
    for case in cases:
        for check in checks_for(given, case.kind):
            work.append((case.kind.name, check.__name__, functools.partial(check, case)))
    every = functools.partial(check_every_number_matters, cases)
    work.append(("all data", check_every_number_matters.__name__, every))
    return _report(name, work, EXPECTED.get(name, {}))


def _report(
    name: str, work: list[tuple[str, str, Callable[[], Any]]], expected: dict[str, str]
) -> Report:
    outcomes, faults = [], []
    for kind, function, check in work:
        title = function.removeprefix("check_").replace("_", " ")
        where = f"{name} on {kind} fails the check '{title}'"
        reason = expected.get(function)
        try:
            note = check() or ""
        # Whatever goes wrong inside a method is what is reported.
        except Exception as error:
            if reason is None:
                faults.append(f"{where}: {_message(error)}")
            outcomes.append(Outcome(kind, title, f"differs: {reason}"))
            continue
        if reason is not None and not note:
            faults.append(
                f"{name} on {kind} passes the check '{title}': remove what "
                "headwater/testing/exceptions.py says of it"
            )
        outcomes.append(Outcome(kind, title, note))
    unknown = set(expected) - {function for _, function, _ in work}
    if unknown:
        faults.append(f"headwater/testing/exceptions.py: {name} has no {', '.join(unknown)}")
    if faults:
        raise AssertionError("\n".join(faults))
    return Report(name, tuple(outcomes))


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, AssertionError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
