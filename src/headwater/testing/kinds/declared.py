"""The kinds of data that a method declares and takes."""

import dataclasses
import functools
import importlib
import pkgutil
import typing
from collections.abc import Mapping

import equinox as eqx
import jax

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod
from headwater.testing import kinds
from headwater.testing.kinds.kind import Kind, Maker, makers


def kinds_for(cls: type[AbstractMethod]) -> list[Kind]:
    """The kinds that `cls` declares in `AbstractMethod[Problem, Data, State]` and takes.

    Raises `LookupError` if there are none of such data of such a problem.
    """
    taken: list[Kind] = []
    fields = {field.name for field in dataclasses.fields(cls)}
    for kind in maker_for(cls)():
        if kind.field is not None and kind.field not in fields:
            continue
        if not (kind.last_resort and taken) and refusal(cls, kind) is None:
            taken.append(kind)
    return taken


def refusal(cls: type[AbstractMethod], kind: Kind) -> str | None:
    """Why the method refuses this problem, in its own words; `None` if it does not."""
    try:
        method = cls()  # pyright: ignore[reportCallIssue]
        eqx.filter_eval_shape(method.init, kind.problem, key=jax.random.key(0))
    except SpecificationError as error:
        return str(error)
    except Exception:
        # Whatever else is wrong belongs to the checks, which show it.
        return None
    return None


def maker_for(cls: type[AbstractMethod]) -> Maker:
    """The function that makes the kinds that `cls` declares.

    Raises `LookupError` if there are none of such data of such a problem.
    """
    for base in cls.__orig_bases__:  # pyright: ignore[reportAttributeAccessIssue]
        if typing.get_origin(base) is AbstractMethod:
            problem, data, _ = typing.get_args(base)
            if (problem, data) not in _all_makers():
                raise LookupError(
                    f"{cls.__name__} learns from {data.__name__} of {problem.__name__}, "
                    "of which no file in headwater/testing/kinds makes any yet"
                )
            return _all_makers()[problem, data]
    raise LookupError(f"{cls.__name__} does not derive from AbstractMethod[Problem, Data, State]")


@functools.cache
def _all_makers() -> Mapping[tuple[type, type], Maker]:
    for module in pkgutil.iter_modules(kinds.__path__, kinds.__name__ + "."):
        importlib.import_module(module.name)
    return makers
