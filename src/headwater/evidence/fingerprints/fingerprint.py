"""Fingerprints of code: what an experiment executes, whatever file it stands in.

A *definition* is a statement at the top of a file: a function, a class, an assignment. A
fingerprint is taken of the definitions that an experiment reaches by name, each as its syntax tree
without docstrings, formatting, type annotations and the paths of modules. So it is the same after a
definition has moved to another file, a file to another folder, after files were renamed, or
definitions and imports put in another order; another constant, default or callee changes it, and so
does another name of a definition. A method of a class counts where its name is mentioned in what
is reached: one that nothing asks for leaves the fingerprint as it is. So does a member of an
enumeration.

Not seen are modules that are imported by a computed name (`importlib.import_module`), names given
as text to `getattr`, members of an enumeration that is gone through, functions that a decorator
enters in a table, files that are not Python, modules imported only for what their import does, and
the code of installed packages. A text that is the name of a method in the catalogue counts as
naming it, since the catalogue builds methods by name. A method's own entry there (`Info`) is left
out, as docstrings are.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from headwater.core.listing import method_modules
from headwater.evidence.fingerprints.code import Code, short
from headwater.evidence.fingerprints.files import Definition
from headwater.evidence.fingerprints.values import Values

PACKAGE = Path(__file__).resolve().parents[2]
"""The folder of this library."""


def fingerprint(
    experiment: Callable[..., Any],
    methods: Iterable[str],
    settings: Any,
    *,
    code: Code | None = None,
) -> str:
    """What `experiment` executes, as 16 hexadecimal digits.

    **Arguments:** `experiment`: a function, also one made by decorators, `functools.partial` or
    another function; `methods`: names in the catalogue of what it runs; `settings`: the arguments
    that it is run with, which count by value; `code`: where the definitions are read, by default
    this library's files, each read once by a process.
    """
    code = _our_code() if code is None else code
    described, start = _start(experiment, methods, settings, code)
    return short([described, code.fingerprint(start)])


def reached_by(
    experiment: Callable[..., Any],
    methods: Iterable[str],
    settings: Any,
    *,
    code: Code | None = None,
) -> set[Definition]:
    """The definitions that the fingerprint with the same arguments is taken of."""
    code = _our_code() if code is None else code
    return code.reached(_start(experiment, methods, settings, code)[1])


def _start(
    experiment: Any, methods: Iterable[str], settings: Any, code: Code
) -> tuple[str, list[Definition]]:
    """The values that are given, as text, and the definitions behind them."""
    values = Values(code)
    described = repr([values.described(experiment), values.described(settings)])
    start = list(values.definitions)
    for name in methods:
        start += code.definitions(method_modules()[name], name)
    return described, start


@functools.cache
def _our_code() -> Code:
    named = {name: (module, name) for name, module in method_modules().items()}
    return Code(PACKAGE, named)
