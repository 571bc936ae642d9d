"""Tests that have passed as they are, and need not be repeated until their code changes."""

import functools
import inspect
import json
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from headwater.core.catalogue import method_class
from headwater.core.errors import DataError
from headwater.core.listing import method_modules
from headwater.environments.catalogue import (
    bandit_names,
    black_box_names,
    environment_class,
    environment_names,
)
from headwater.environments.processes import process_names, process_place
from headwater.evidence.claim import Claim
from headwater.evidence.fingerprints.code import Code, short
from headwater.evidence.fingerprints.fingerprint import PACKAGE, fingerprint
from headwater.runs.directory import surroundings
from headwater.testing.kinds.declared import maker_for

_SAMPLE = 20
"""One of so many tests is repeated although nothing has changed."""


def source_of_test(
    function: Callable[..., Any],
    fixtures: Iterable[Callable[..., Any]] = (),
    given: Mapping[str, Any] | None = None,
    claim: Claim | None = None,
) -> str | None:
    """A fingerprint of what a test executes; `None` if the code of the test itself is not found.

    Beside what fingerprints of experiments are of, annotations count, since tests check shapes, and
    so do environments and processes named by a text, and of the methods that stand in `given` which
    read no rewards and what kinds of data they take: the contract looks both up by the method.

    **Arguments:** `function`: the test; `fixtures`: the functions that make what it is given;
    `given`: its parameters, of which those that name a method stand for it; `claim`: the claim that
    it runs at its smallest scale, if any.
    """
    if not _code().definitions_of(inspect.unwrap(function)):
        return None  # As of what Hypothesis makes of a function: its name alone would be left.
    given = dict(given or {})
    values = [value for value in given.values() if isinstance(value, str)]
    methods = [value for value in values if value in method_modules()]
    settings: list[Any] = [list(fixtures), given]
    settings += [name for name in methods if not method_class(name).info.rewards]
    settings += [maker_for(method_class(name)) for name in methods]
    if claim is not None:
        settings += [claim.experiment, claim.scales["smoke"]]
        methods += claim.methods
    return fingerprint(function, methods, settings, code=_code())


class PassedTests:
    """The tests that have passed as they are, as a JSON file keeps them.

    A test counts as passed while its fingerprint is the one with which it passed, under the
    installed versions. What a fingerprint cannot see (a module imported by a computed name, data,
    what all tests run under) is found by repeating one in twenty, others after each commit; what
    then fails is withdrawn.

    **Arguments:** `path`: the file, in the folder of the tests; if there is none, no test has
    passed.

    Raises `DataError` if the file is not what `record` writes.
    """

    def __init__(self, path: Path):
        self.path = path
        self._sources: dict[str, str] = {}
        around = surroundings()
        minor = ".".join(platform.python_version_tuple()[:2])
        self._made_with = {"python": minor, **around["versions"]}
        self._commit = around["commit"] or ""
        if path.is_file():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                made_with, tests = dict(stored["made_with"]), dict(stored["tests"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}: it does not list tests that have passed: delete it, and have it "
                    "written again"
                ) from error
            if made_with == self._made_with:
                self._sources = tests

    def holds(self, test: str, source: str) -> bool:
        """Whether the test of this name has passed with this fingerprint."""
        return self._sources.get(test) == source

    def is_in_sample(self, test: str) -> bool:
        """Whether the test is repeated all the same."""
        return int(short([test, self._commit]), 16) % _SAMPLE == 0

    def record(self, passed: Mapping[str, str], known: Collection[str] | None = None) -> None:
        """Writes which tests have passed; those of files that are gone are not kept.

        **Arguments:** `passed`: the fingerprint of each test that passed now; `known`: the tests
        that there are, beside which none is kept; not given where only some were run.
        """
        kept = {
            test: source
            for test, source in self._sources.items()
            if (self._file_of(test).is_file() if known is None else test in known)
        }
        self._write({**kept, **passed})

    def withdraw(self, failed: Collection[str]) -> None:
        """Takes tests that failed out of the file, so that they are repeated until they pass."""
        if not self._sources.keys().isdisjoint(failed):
            self._write({t: source for t, source in self._sources.items() if t not in failed})

    def _file_of(self, test: str) -> Path:
        return self.path.parents[1] / test.partition("::")[0]

    def _write(self, sources: Mapping[str, str]) -> None:
        self._sources = dict(sorted(sources.items()))
        content = {"made_with": self._made_with, "tests": self._sources}
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)


@functools.cache
def _code() -> Code:
    named = {name: (module, name) for name, module in method_modules().items()}
    for name in (*environment_names(), *bandit_names(), *black_box_names()):
        cls = environment_class(name)
        named[name] = cls.__module__, cls.__name__
    named |= {name: process_place(name) for name in process_names()}
    return Code(PACKAGE, named, annotated=True)
