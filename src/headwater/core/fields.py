"""Fields of hyper-parameters: what a value may be is said where the field stands.

```python
class MyMethod(AbstractMethod[Spaces, Transitions, MyState]):
    discount: float = share(0.99)
    learning_rate: float = non_negative(3e-4)
    num_critics: int = integer(2)
    bonus: Literal["bernstein", "hoeffding"] = choice("bernstein")
```

Each is an `equinox.field`: numbers may be swept with `vmap`, and what decides the program (counts,
sizes, flags and choices) is static. `allowed_values` reads back what a field may hold.
"""

import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, NamedTuple

import equinox as eqx
import numpy as np

from headwater.core.errors import SpecificationError, nearest

_RANGE = "range"
_MOST_LAYERS, _WIDEST, _LARGEST_COUNT = 64, 100_000, 2**31 - 1


class Range(NamedTuple):
    """Numbers from `low` to `high`, these included unless `strict`.

    `infinite`: positive infinity is allowed too (it means: never, no bound, or no difference).
    `whole`: only whole numbers.
    """

    low: float = -math.inf
    high: float = math.inf
    strict: bool = False
    infinite: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.strict:
            return bool(self.low < value < self.high)
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        within = "strictly between" if self.strict else "between"
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"it must lie {within} {self.low:g} and {self.high:g}"
        if math.isfinite(self.low):
            return f"it must be {'more than' if self.strict else 'at least'} {self.low:g}"
        return "it must be a number"

    @property
    def interval(self) -> str:
        """The range as mathematics writes it, for tables."""
        if self.whole:
            return f"{self.low:g}, {self.low + 1:g}, …"
        left = "(" if self.strict or math.isinf(self.low) else "["
        right = "]" if self.infinite or (not self.strict and math.isfinite(self.high)) else ")"
        return f"{left}{_bound(self.low)}, {_bound(self.high)}{right}"

    def fault(self, value: float) -> str | None:
        """What is wrong with `value`, as the second half of a sentence; None if nothing is."""
        if math.isnan(value):
            return "it must be a number"
        if math.isinf(value):
            return None if value > 0 and self.infinite else "it must be finite"
        if value not in self:
            return str(self)
        if self.whole and not float(value).is_integer():
            return "it must be a whole number"
        if self.whole and value > _LARGEST_COUNT:
            return f"it must be at most {_LARGEST_COUNT:,}"
        return None


def _bound(value: float) -> str:
    return f"{value:g}".replace("inf", "∞")


class _Sizes(NamedTuple):
    """Numbers of units of layers."""

    interval: str = "1, 2, … for each layer"


def share(default: float | None) -> Any:
    """A number from 0 to 1, these included."""
    return between(0.0, 1.0, default)


def probability(default: float | None) -> Any:
    """A number strictly between 0 and 1."""
    return between(0.0, 1.0, default, strict=True)


def positive(default: float | None, *, infinite: bool = False) -> Any:
    """A number more than 0; `infinite`: infinity is allowed too."""
    return _ranged(default, Range(0.0, strict=True, infinite=infinite))


def non_negative(default: float | None, *, infinite: bool = False) -> Any:
    """A number of at least 0; `infinite`: infinity is allowed too."""
    return _ranged(default, Range(0.0, infinite=infinite))


def between(low: float, high: float, default: float | None, *, strict: bool = False) -> Any:
    """A number from `low` to `high`; `strict`: without these two."""
    return _ranged(default, Range(low, high, strict))


def real(default: float | None) -> Any:
    """Any finite number."""
    return _ranged(default, Range())


def integer(default: int | None, *, low: int = 1, static: bool = True) -> Any:
    """A whole number of at least `low`.

    `static`: it decides sizes or the program. If not, it may be swept, and must not be branched on.
    """
    return _ranged(default, Range(float(low), whole=True), static=static)


def sizes(default: tuple[int, ...]) -> Any:
    """The number of units of each layer."""
    return eqx.field(static=True, default=default, metadata={_RANGE: _Sizes()})


def choice_or_positive(default: str | float) -> Any:
    """One of the strings that the field's annotation lists, or a number more than 0."""
    allowed = Range(0.0, strict=True)
    return eqx.field(static=True, default=default, metadata={_RANGE: allowed})


def flag(default: bool) -> Any:
    """True or false."""
    return eqx.field(static=True, default=default)


def choice(default: str | None) -> Any:
    """One of the strings that the field's annotation, a `Literal`, lists."""
    return eqx.field(static=True, default=default)


def _ranged(default: float | int | None, allowed: Range, *, static: bool = False) -> Any:
    return eqx.field(static=static, default=default, metadata={_RANGE: allowed})


def range_of(field: dataclasses.Field) -> Range | None:
    """What the numbers of a field may be, or None where it declares no range."""
    found = field.metadata.get(_RANGE)
    return found if isinstance(found, Range) else None


def choices_of(owner: type, name: str) -> tuple[str, ...]:
    """The strings among which the field called `name` of the class `owner` chooses; often none."""
    return _choices(owner).get(name, ())


def allowed_values(owner: type, field: dataclasses.Field) -> str:
    """What a field of the class `owner` may hold, for tables; empty if it declares nothing."""
    hint = _hint(owner, field)
    if hint is bool:
        return "True, False"
    names, allowed = choices_of(owner, field.name), field.metadata.get(_RANGE)
    found = ", ".join((*names, *(() if allowed is None else (allowed.interval,))))
    return f"{found} or None" if found and type(None) in typing.get_args(hint) else found


def check_fields(owner: Any) -> None:
    """Raises `SpecificationError`, naming class and field, for a value that is not allowed.

    Arrays are left alone: they are values that are swept over, or traced. So are fields that
    declare nothing.

    **Arguments:** `owner`: a dataclass whose fields are hyper-parameters.
    """
    cls = type(owner)
    for field in dataclasses.fields(owner):
        value: Any = getattr(owner, field.name)
        where = f"{cls.__name__}.{field.name}"
        allowed = field.metadata.get(_RANGE)
        if isinstance(allowed, _Sizes):
            _check_sizes(value, f"{where} = ")
        elif isinstance(allowed, Range) and _is_number(value):
            if fault := allowed.fault(float(value)):
                raise SpecificationError(f"{where} = {value}: {fault}")
        elif known := choices_of(cls, field.name):
            if value is not None:
                check_choice(value, known, where)
        elif _hint(cls, field) is bool and not isinstance(value, bool | np.bool_):
            raise SpecificationError(f"{where} = {value!r}: it must be True or False")


def check_choice(value: Any, known: Any, where: str, kind: str = "value") -> None:
    """Raises `SpecificationError` with the nearest names if `value` is none of those `known`.

    **Arguments:** `known`: strings, or a `Literal` of them; `where`: the option, to begin the
    sentence with; `kind`: what the strings are names of.
    """
    names = known if isinstance(known, tuple) else typing.get_args(known)
    if value not in names:
        raise SpecificationError(f"{where}: {nearest(str(value), names, kind)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


@functools.cache
def _choices(owner: type) -> dict[str, tuple[str, ...]]:
    found = {}
    for field in dataclasses.fields(owner):
        hint = _hint(owner, field)
        options = typing.get_args(hint) if _is_union(hint) else (hint,)
        names = [n for o in options if typing.get_origin(o) is Literal for n in typing.get_args(o)]
        if names and all(isinstance(name, str) for name in names):
            found[field.name] = tuple(names)
    return found


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _hint(owner: type, field: dataclasses.Field) -> Any:
    if not isinstance(field.type, str):
        return field.type
    try:
        return typing.get_type_hints(owner)[field.name]
    except NameError:
        # A file may import what its annotations name for the type checker alone.
        return None


def _check_sizes(given: Any, where: str) -> None:
    if not isinstance(given, tuple):
        raise SpecificationError(f"{where}{given!r}: it must be a tuple of whole numbers")
    where += str(list(given))
    if len(given) > _MOST_LAYERS:
        raise SpecificationError(f"{where[:80]}…: at most {_MOST_LAYERS} layers can be trained")
    if any(size < 1 for size in given):
        raise SpecificationError(f"{where}: every layer needs at least one unit")
    if any(size > _WIDEST for size in given):
        raise SpecificationError(f"{where}: a layer has at most {_WIDEST:,} units")
