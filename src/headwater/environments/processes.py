"""Finite processes by name: the makers in the files of this room, found without a list."""

import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import jax

from headwater.core.errors import HeadwaterError, SpecificationError, nearest
from headwater.core.hypotheses import FiniteTask

_ROOM = Path(__file__).parent
_FOLDERS = ("tabular", "linear")
_MAKER = re.compile(
    r"^def ([a-z]\w*)\((?:(?!^def ).)*?\) -> "
    r"(?:FiniteProcess|LinearProcess|LinearRewardProcess|LowRankTasks|FiniteTask|Windows):",
    re.MULTILINE | re.DOTALL,
)


@functools.cache
def _homes() -> dict[str, str]:
    found = {}
    for folder in _FOLDERS:
        for path in sorted((_ROOM / folder).glob("*.py")):
            for name in _MAKER.findall(path.read_text(encoding="utf-8")):
                found[name.replace("_", "-")] = f"headwater.environments.{folder}.{path.stem}"
    return found


@functools.cache
def process_names() -> tuple[str, ...]:
    """Names of the processes that can be made from numbers and texts alone."""
    return tuple(sorted(name for name in _homes() if _plain(_maker(name))))


def make_process(name: str, /, **options: Any) -> FiniteTask:
    """The process called `name`, such as `river-swim`.

    **Arguments:** `options`: arguments of its maker; for one that draws something, `seed` (default:
    0) is what it draws from.

    Raises `SpecificationError`, with the nearest names, if there is none, or for an option that it
    does not have or needs.
    """
    proper = name.replace("_", "-")
    if proper not in process_names():
        raise SpecificationError(nearest(name, process_names(), "process"))
    maker = _maker(proper)
    parameters = dict(inspect.signature(maker).parameters)
    draws = parameters.pop("key", None) is not None
    known = [*parameters, *(["seed"] if draws and "seed" not in parameters else [])]
    for option in options:
        if option not in known:
            if not known:
                raise SpecificationError(f"{proper} has no options, but '{option}' was given")
            raise SpecificationError(f"{proper}: {nearest(option, known, 'option')}")
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in given]
    if missing:
        raise SpecificationError(
            f"{proper} needs the option {missing[0]}: give {missing[0]}=… (it has "
            f"{', '.join(known)})"
        )
    if draws:
        seed = given.pop("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise SpecificationError(f"{proper}: seed = {seed!r} must be a whole number from 0 on")
        given["key"] = jax.random.key(seed)
    try:
        return FiniteTask.of(maker(**given))
    except HeadwaterError:
        raise
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SpecificationError(f"{proper} cannot be made of these options ({reason})") from None


def process_place(name: str) -> tuple[str, str]:
    """The module and the name of the function that makes the process called `name`."""
    return _homes()[name], name.replace("-", "_")


def _maker(name: str) -> Any:
    return getattr(importlib.import_module(_homes()[name]), name.replace("-", "_"))


def _plain(maker: Any) -> bool:
    """Whether a person can say in an option what the maker needs."""
    return not any(
        parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.name != "key"
        and parameter.default is parameter.empty
        for parameter in inspect.signature(maker).parameters.values()
    )
