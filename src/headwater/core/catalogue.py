"""The catalogue of methods, discovered from the files under `methods/`."""

import dataclasses
import importlib
import math
import re
import types
import typing
from typing import Any

import jax
import numpy as np

from headwater.core.errors import SpecificationError, nearest
from headwater.core.listing import method_modules
from headwater.core.method import AbstractMethod

__all__ = [
    "all_methods",
    "build_method",
    "family",
    "learns_from",
    "method_class",
    "method_modules",
    "settings",
]


def method_class(name: str) -> type[AbstractMethod]:
    """The class of the method called `name`, whatever its case and punctuation.

    Raises `SpecificationError`, naming the nearest methods, if there is none.
    """
    plain = {_plain(known): known for known in method_modules()}
    if _plain(name) not in plain:
        raise SpecificationError(nearest(name, method_modules(), "method"))
    known = plain[_plain(name)]
    return getattr(importlib.import_module(method_modules()[known]), known)


def all_methods() -> dict[str, type[AbstractMethod]]:
    """Every method by name."""
    return {name: method_class(name) for name in method_modules()}


def family(name: str) -> str:
    """The folders under `methods/` that a method lives in, such as `control/offline`."""
    return "/".join(method_modules()[name].split(".")[2:-1])


def learns_from(cls: type[AbstractMethod]) -> tuple[type, type]:
    """The problem and the kind of data that a method declares."""
    for base in cls.__orig_bases__:  # pyright: ignore[reportAttributeAccessIssue]
        if typing.get_origin(base) is AbstractMethod:
            problem, data, _ = typing.get_args(base)
            return problem, data
    raise LookupError(f"{cls.__name__} does not derive from AbstractMethod[Problem, Data, State]")


def settings(method: AbstractMethod) -> dict[str, Any]:
    """The hyper-parameters of `method` as plain values that JSON can hold."""
    return {f.name: _plain_value(getattr(method, f.name)) for f in dataclasses.fields(method)}


def build_method(name: str, values: dict[str, Any] | None = None) -> AbstractMethod:
    """The method called `name` with some hyper-parameters set.

    Values may be strings (from a command line), which are read according to the field's type; that
    of a method is its name, or what `settings` says of it with its name as `method`. A key such as
    `dynamics.learning_rate` is of the method that the field `dynamics` holds.
    Raises `SpecificationError` for an unknown method or field, or a value of the wrong type.
    """
    cls = method_class(name)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    given = {}
    inside: dict[str, dict[str, Any]] = {}
    for name_given, value in (values or {}).items():
        key, _, of_held = name_given.replace("-", "_").partition(".")
        if of_held and _holds_method(hints.get(key)):
            inside.setdefault(key, {})[of_held] = value
            continue
        if of_held or key not in fields:
            known = nearest(name_given.replace("-", "_"), fields, "hyper-parameter")
            raise SpecificationError(f"{cls.__name__}: {known}")
        given[key] = _read(value, hints[key], f"{cls.__name__}.{key}")
    for key, values_inside in inside.items():
        held = given[key] if key in given else getattr(build_method(name), key)
        given[key] = build_method(type(held).__name__, {**settings(held), **values_inside})
    return cls(**given)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", ""))


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(v) for v in value]
    if isinstance(value, AbstractMethod):
        return {"method": type(value).__name__, **settings(value)}
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _read(value: Any, hint: Any, where: str) -> Any:
    wrong = SpecificationError(f"{where} = {value!r} is not of type {_hint_name(hint)}")
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if type(None) in options and value in (None, "None", "none"):
            return None
        for option in (o for o in options if o is not type(None)):
            try:
                return _read(value, option, where)
            except SpecificationError:
                continue
        raise wrong
    if typing.get_origin(hint) is typing.Literal:
        if isinstance(value, str | int) and value in typing.get_args(hint):
            return value
        raise SpecificationError(f"{where}: " + nearest(str(value), typing.get_args(hint), "value"))
    if typing.get_origin(hint) is tuple:
        parts = value.strip("()[] ").split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise wrong
        element = typing.get_args(hint)[0]
        return tuple(_read(p, element, where) for p in parts if p != "")
    if _holds_method(hint) and (inside := _described(value)) is not None:
        return build_method(*inside)
    if hint is bool:
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
            return value.lower() in ("true", "yes")
        if not isinstance(value, bool):
            raise wrong
        return value
    if hint in (int, float):
        if isinstance(value, bool):
            raise wrong
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if hint is int and not number.is_integer():
            raise wrong
        return hint(number)
    if hint is str and isinstance(value, str):
        return value
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise wrong


def _holds_method(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractMethod)


def _described(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Name and values of a method that a text names, or that `settings` wrote; else `None`."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("method"), str):
        return value["method"], {k: v for k, v in value.items() if k != "method"}
    return None


def _hint_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
