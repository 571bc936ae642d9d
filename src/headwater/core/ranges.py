"""What hyper-parameters may be: said once, by the name that they have in every method.

In Headwater's own methods, a number that has no line here must not be negative (a count: must be at
least one) nor infinite; a method with a hyper-parameter that may be more, or must be less, adds a
line. Methods of others are held to the lines of names that they share.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from headwater.core.errors import SpecificationError


class Range(NamedTuple):
    """Numbers from `low` to `high`, these included unless `strict`."""

    low: float
    high: float = math.inf
    strict: bool = False

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


_SHARE, _INSIDE = Range(0.0, 1.0), Range(0.0, 1.0, strict=True)
_POSITIVE, _ANY = Range(0.0, math.inf, strict=True), Range(-math.inf)

RANGES: dict[str, Range] = {
    "discount": _SHARE,
    "target_rate": _SHARE,
    "statistics_rate": _SHARE,
    "trace_decay": _SHARE,
    "exploration": _SHARE,
    "initial_exploration": _SHARE,
    "final_exploration": _SHARE,
    "label_noise": Range(0.0, 0.5),
    "expectile": _INSIDE,
    "failure_probability": _INSIDE,
    "temperature": _POSITIVE,
    "initial_temperature": _POSITIVE,
    "decay_updates": _POSITIVE,
    "actor_decay_updates": _POSITIVE,
    "exploration_updates": _POSITIVE,
    "largest_gradient": _POSITIVE,
    "largest_weight": _POSITIVE,
    "distance": _POSITIVE,
    "ridge": _POSITIVE,
    "prior_count": _POSITIVE,
    "prior_precision": _POSITIVE,
    "target_entropy": _ANY,
    "initial_value": _ANY,
    "reward_threshold": _ANY,
    "target_gap": _ANY,
    "scale_power": _ANY,
    "explorations": Range(0.0),
    "query_budget": Range(0.0),
    "restarts": Range(0.0),
    "newton_steps": Range(0.0),
    "memory": Range(0.0),
    "cache": Range(0.0),
}
"""By the name of the field."""

MAY_BE_INFINITE = (
    "decay_updates",
    "actor_decay_updates",
    "largest_gradient",
    "largest_weight",
    "temperature",
)
"""Where infinity means: never, no bound, or no difference."""

_MOST_LAYERS, _WIDEST, _LARGEST_COUNT = 64, 100_000, 2**31 - 1


def check_ranges(owner: Any) -> None:
    """Raises `SpecificationError`, naming class and field, for a number out of its range.

    Arrays are left alone: they are values that are swept over, or traced.

    **Arguments:** `owner`: a dataclass whose fields are hyper-parameters.
    """
    own = type(owner).__module__.startswith("headwater.")
    for field in dataclasses.fields(owner):
        name = field.name
        if name not in RANGES and not own:
            continue
        value: Any = getattr(owner, name)
        where = f"{type(owner).__name__}.{name} = "
        if name.endswith("widths") and isinstance(value, tuple):
            _check_widths(value, where)
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            _check_number(float(value), name, field.type in (int, "int"), f"{where}{value}")


def _check_number(value: float, name: str, count: bool, where: str) -> None:
    allowed = RANGES.get(name, Range(1.0) if count else Range(0.0))
    if math.isnan(value):
        raise SpecificationError(f"{where}: it must be a number")
    if math.isinf(value):
        if value > 0 and name in MAY_BE_INFINITE:
            return
        raise SpecificationError(f"{where}: it must be finite")
    if name.endswith("learning_rate") and value < 0:
        raise SpecificationError(f"{where}: a learning rate is no negative number")
    if value not in allowed:
        raise SpecificationError(f"{where}: {allowed}")
    if count and value > _LARGEST_COUNT:
        raise SpecificationError(f"{where}: it must be at most {_LARGEST_COUNT:,}")


def _check_widths(widths: tuple[Any, ...], where: str) -> None:
    where += str(list(widths))
    if len(widths) > _MOST_LAYERS:
        raise SpecificationError(f"{where[:80]}…: at most {_MOST_LAYERS} layers can be trained")
    if any(width < 1 for width in widths):
        raise SpecificationError(f"{where}: every layer needs at least one unit")
    if any(width > _WIDEST for width in widths):
        raise SpecificationError(f"{where}: a layer has at most {_WIDEST:,} units")
