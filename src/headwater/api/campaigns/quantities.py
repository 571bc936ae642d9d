"""What an experiment can be made with, by name, and files that several programs write."""

import contextlib
import dataclasses
import fcntl
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.runs.files import explain


@dataclasses.dataclass(frozen=True)
class Component:
    """One quantity that an experiment can be made with.

    **Arguments:** `low`, `high`: what it lies between; `logarithmic`: factors count, not
    differences; `whole`: only whole numbers.
    """

    low: int | float
    high: int | float
    logarithmic: bool = False
    whole: bool = False


def as_space(given: Any) -> tuple[list[str], SearchSpace]:
    """Names and space of a table of bounds, or of a list of the only points there are.

    Raises `SpecificationError` for anything else.
    """
    if isinstance(given, Mapping):
        if not given:
            raise SpecificationError("a campaign needs at least one quantity to choose")
        names = [str(name) for name in given]
        components = [_component(name, part) for name, part in zip(names, given.values())]
        for name, component in zip(names, components):
            _check(name, component)
        try:
            box = SearchSpace(
                tuple(float(c.low) for c in components),
                tuple(float(c.high) for c in components),
                logarithmic=tuple(bool(c.logarithmic) for c in components),
                whole=tuple(bool(c.whole) for c in components),
            )
        except SpecificationError as error:
            by_name = lambda found: names[int(found[1])]
            raise SpecificationError(re.sub(r"component (\d+)", by_name, str(error))) from None
        return names, box
    if not isinstance(given, Sequence) or not given or not isinstance(given[0], Mapping):
        raise SpecificationError(
            "a space is a table of bounds by name, or a list of possible points, each by name"
        )
    names = [str(name) for name in given[0]]
    for row, point in enumerate(given):
        if set(point) != set(names):
            raise SpecificationError(
                f"point {row + 1} has the quantities {', '.join(map(str, point))}, but the first "
                f"has {', '.join(names)}"
            )
        for name, value in point.items():
            if isinstance(value, str):
                raise SpecificationError(f"point {row + 1}: {name} is '{value}': {_NO_WORDS}")
    return names, SearchSpace.of_candidates([[point[name] for name in names] for point in given])


_NO_WORDS = (
    "words have no order; give the list of points that are possible, with a quantity of 0 or 1 for "
    "each word, or, where every quantity is one of several words, number them from 0, as whole "
    "quantities, and search with GameOpt"
)


def _component(name: str, given: Any) -> Component:
    if isinstance(given, Component):
        return given
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        if isinstance(given, list | tuple) and any(isinstance(each, str) for each in given):
            raise SpecificationError(f"{name} is one of {list(given)}: {_NO_WORDS}") from None
        raise SpecificationError(
            f"{name}: give two bounds, or hw.Component(low, high, …), not {given!r}"
        ) from None
    return Component(low, high)


def _check(name: str, given: Component) -> None:
    """Raises `SpecificationError`, naming the quantity, unless it can be searched."""
    try:
        low, high = float(given.low), float(given.high)
    except (TypeError, ValueError):
        raise SpecificationError(
            f"{name} lies between two numbers, not {given.low!r} and {given.high!r}"
        ) from None
    if given.whole and not (low.is_integer() and high.is_integer()):
        raise SpecificationError(
            f"{name} is a whole number, but lies between {low:g} and {high:g}: give whole bounds"
        )


def whole_number(value: Any, name: str) -> int:
    """`value` as an integer. Raises `SpecificationError`, naming the option, if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise SpecificationError(f"{name} = {value!r}: it must be a whole number")
    return int(value)


def finite_number(value: Any, what: str) -> float:
    """`value` as a number. Raises `DataError`, which begins with `what`, unless it is finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{what} is no number: {value!r}") from None
    if not math.isfinite(number):
        raise DataError(f"{what} is {number}: tell None if the experiment failed")
    return number


def unit_point(space: SearchSpace, names: Sequence[str], point: Any, where: str) -> np.ndarray:
    """A point by name in the unit cube. Raises `DataError` for what lies outside."""
    if not isinstance(point, Mapping):
        raise DataError(f"{where} gives no quantities by name ({', '.join(names)}): {point!r}")
    for name in (*names, *point):
        if name not in point:
            raise DataError(f"{where} has no '{name}'")
        if name not in names:
            raise DataError(
                f"{where}: unknown quantity '{name}': known quantities are {', '.join(names)}"
            )
    place = np.asarray([finite_number(point[name], f"{where}: {name}") for name in names])
    for name, value, low, high in zip(names, place, space.low, space.high):
        slack = 1e-6 * (high - low)
        if not low - slack <= value <= high + slack:
            raise DataError(f"{where}: {name} = {value:g} lies outside of {low:g} … {high:g}")
    for name, value, is_whole in zip(names, place, space.whole):
        if is_whole and abs(value - round(value)) > 1e-6:
            raise DataError(f"{where}: {name} = {value:g}, which must be a whole number")
    return np.clip(space.to_unit(place), 0.0, 1.0)


def named_point(space: SearchSpace, names: Sequence[str], point: Any) -> dict[str, float]:
    """A point of the unit cube in the user's units, by name."""
    point = np.asarray(point, np.float64)
    place = space.from_unit(point)
    if space.candidates is not None:
        # Exactly one of them, in the digits in which it was given, and not what rounding makes.
        known = np.asarray(space.candidates)
        apart = np.abs(space.to_unit(known.astype(np.float64)) - point).sum(axis=1)
        place = [float(str(value)) for value in known[np.argmin(apart)]]
    whole = space.whole or (False,) * space.size
    return {
        name: int(value) if is_whole else float(value)
        for name, value, is_whole in zip(names, place, whole)
    }


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """While nobody else is at the file. Raises `RunError` if it cannot be locked."""
    if path is None:
        yield
        return
    place = path.with_name(f".{path.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise RunError(explain(error, path)) from error
