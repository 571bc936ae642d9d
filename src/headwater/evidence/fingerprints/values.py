"""The values that an experiment is given, as text, and the code behind them."""

import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from headwater.evidence.fingerprints.code import Code
from headwater.evidence.fingerprints.files import Definition


class Values:
    """Describes values by what they hold and the code behind them, and collects that code."""

    def __init__(self, code: Code):
        self._code = code
        self._open: list[Any] = []
        self.definitions: list[Definition] = []

    def described(self, value: Any) -> Any:
        """`value` as something whose `repr` is the same in every process."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return value
        if any(value is other for other in self._open):
            return "<itself>"
        self._open.append(value)
        try:
            return self._compound(value)
        finally:
            self._open.pop()

    def _compound(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            items = [(self.described(k), self.described(v)) for k, v in value.items()]
            return {"": sorted(items, key=repr)}
        if isinstance(value, list | tuple):
            return [type(value).__name__, *map(self.described, value)]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(map(self.described, value), key=repr)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.described, (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            code = self._code_of(value.__func__)
            return ["method", value.__name__, *code, self.described(value.__self__)]
        if callable(value) and (inner := inspect.unwrap(value)) is not value:
            return self.described(inner)
        if isinstance(value, types.FunctionType):
            held: list[Any] = []
            if "<" in value.__qualname__:  # Made by another function or a lambda expression.
                held += map(_content, value.__closure__ or ())
                held += [value.__defaults__, value.__kwdefaults__]
            return ["function", *self._code_of(value), *map(self.described, held)]
        if isinstance(value, type):
            return ["class", *self._code_of(value)]
        if isinstance(value, types.ModuleType):
            return ["module"]
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return ["array", str(value.dtype), value.tolist()]
        return [self.described(type(value)), self.described(getattr(value, "__dict__", {}))]

    def _code_of(self, value: Any) -> list[str]:
        found = self._code.definitions_of(value)
        self.definitions += found
        name = value.__qualname__
        if not found:
            return [name]
        return [name, *sorted(self._code.fingerprint_of_one(d) for d in found)]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "<empty>"
