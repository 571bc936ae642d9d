"""What a black-box method is told: where may be asked, at what cost, and how often at most."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError


class SearchSpace(eqx.Module):
    """The problem of a method that chooses where to evaluate a function that it cannot see.

    Inside Headwater a point lies in the unit cube; `to_unit` and `from_unit` map the user's units.

    **Arguments:** `low`, `high`: of each component, in the user's units; `candidates`: the only
    points that may be asked, in the user's units `[candidate, component]`, or `None` for the whole
    box; `logarithmic`, `whole`: of each component, whether its logarithm counts, and whether it is
    a whole number (empty: none is); `costs`: of an evaluation at each fidelity, the last of which
    is the function whose maximum is sought; `capacity`: evaluations that there is room for, earlier
    ones included.

    Raises `SpecificationError` for what is no such space.
    """

    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)
    candidates: Float[Array, "candidate component"] | None = None
    logarithmic: tuple[bool, ...] = eqx.field(static=True, default=())
    whole: tuple[bool, ...] = eqx.field(static=True, default=())
    costs: tuple[float, ...] = eqx.field(static=True, default=(1.0,))
    capacity: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        size = len(self.low)
        if not size or len(self.high) != size:
            raise SpecificationError(
                f"a search space needs as many lower bounds as upper ones, and at least one, not "
                f"{size} and {len(self.high)}"
            )
        for i, (low, high) in enumerate(zip(self.low, self.high)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise SpecificationError(
                    f"component {i} lies between {low:g} and {high:g}: two finite bounds are "
                    "needed, the lower one first"
                )
        for name, flags in (("logarithmic", self.logarithmic), ("whole", self.whole)):
            if len(flags) not in (0, size):
                raise SpecificationError(
                    f"{name} says {len(flags)} times what {size} components are: once for each"
                )
        for i, flag in enumerate(self.logarithmic):
            if flag and self.low[i] <= 0.0:
                raise SpecificationError(
                    f"component {i} is logarithmic, but begins at {self.low[i]:g}: it must be "
                    "more than 0"
                )
        if not self.costs or any(not (math.isfinite(c) and c > 0.0) for c in self.costs):
            raise SpecificationError(
                f"costs are {self.costs}: each fidelity needs one that is finite and more than 0"
            )
        if self.capacity < 1:
            raise SpecificationError(f"capacity = {self.capacity}: it must be at least 1")
        given: Any = self.candidates
        # Not what stands for an array while a program is traced or mapped.
        whole = isinstance(given, np.ndarray | jnp.ndarray) and given.ndim == 2
        if whole and (given.shape[1] != size or not given.shape[0]):
            raise SpecificationError(
                f"candidates have shape {given.shape}: rows of {size} components are needed"
            )

    @classmethod
    def of_candidates(cls, candidates: Any, **others: Any) -> "SearchSpace":
        """The space of these points `[candidate, component]`, in the user's units.

        **Arguments:** `others`: `costs` and `capacity`. Raises `SpecificationError` unless they are
        finite numbers, a row for each.
        """
        try:
            rows = np.asarray(candidates, np.float64)
        except (TypeError, ValueError):
            raise SpecificationError("candidates are not rows of numbers of one length") from None
        if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
            raise SpecificationError(
                f"candidates have shape {rows.shape}: finite numbers are needed, a row for each"
            )
        low, high = rows.min(axis=0), rows.max(axis=0)
        # A component that is the same in all of them still needs a length.
        high = np.where(high > low, high, low + np.maximum(1.0, np.abs(low)))
        return cls(
            tuple(low.tolist()), tuple(high.tolist()), jnp.asarray(rows, jnp.float32), **others
        )

    @property
    def size(self) -> int:
        """Number of components of a point."""
        return len(self.low)

    @property
    def fidelities(self) -> int:
        """Number of fidelities."""
        return len(self.costs)

    @property
    def unit_candidates(self) -> Float[Array, "candidate component"] | None:
        """The candidates in the unit cube."""
        return None if self.candidates is None else self.to_unit(self.candidates)

    def to_unit(self, points) -> Any:
        """Maps the user's units onto the unit cube (arrays `[..., component]`)."""
        low, high, log = self._bounds(points.ndim)
        numbers = np if isinstance(points, np.ndarray) else jnp
        if any(self.logarithmic):
            points = numbers.where(log, numbers.log(numbers.where(log, points, 1.0)), points)
        return ((points - low) / (high - low)).astype(points.dtype)

    def from_unit(self, points) -> Any:
        """Maps the unit cube onto the user's units (arrays `[..., component]`)."""
        low, high, log = self._bounds(points.ndim)
        numbers = np if isinstance(points, np.ndarray) else jnp
        found = low + points * (high - low)
        if any(self.logarithmic):
            found = numbers.where(log, numbers.exp(numbers.where(log, found, 0.0)), found)
        if any(self.whole):
            found = numbers.where(_row(self.whole, found.ndim), numbers.round(found), found)
        low, high = (_row(ends, found.ndim) for ends in (self.low, self.high))
        return numbers.clip(found, low, high).astype(points.dtype)

    def rounded(self, points) -> Any:
        """The points of the unit cube `[..., component]` with whole numbers where these are due."""
        return self.to_unit(self.from_unit(points)) if any(self.whole) else points

    def require_one_fidelity(self, method: str) -> None:
        """Raises `SpecificationError` if there are several, of which `method` takes the last."""
        if self.fidelities > 1:
            raise SpecificationError(
                f"{method} evaluates at one fidelity, and here are {self.fidelities}: leave out "
                "the others"
            )

    def require_several_fidelities(self, method: str, instead: str) -> None:
        """Raises `SpecificationError` if there is one alone, for which `instead` is meant."""
        if self.fidelities == 1:
            raise SpecificationError(
                f"{method} chooses among fidelities, and here is one: take {instead}, or say what "
                "an evaluation at each costs"
            )

    def require_room(self, method: str, most: int) -> None:
        """Raises `SpecificationError` if there may be more evaluations than `method` can take."""
        if self.capacity > most:
            raise SpecificationError(
                f"{method} infers exactly, in time that grows with the cube of the evaluations, "
                f"and takes at most {most:,}: {self.capacity:,} are too many, so evaluate less or "
                "give fewer earlier ones"
            )

    def mismatch(self, other: "SearchSpace") -> str | None:
        """Why points of `other` are no points of `self`, in words; `None` if they are."""
        for name in ("low", "high", "logarithmic", "whole", "costs"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if tuple(ours) != tuple(theirs):
                return f"{name} was {_said(ours)} and is {_said(theirs)}"
        ours, theirs = self.candidates, other.candidates
        if (ours is None) is not (theirs is None):
            return "one has candidates and the other has not"
        if ours is None or theirs is None:
            return None
        alike = ours.shape == theirs.shape and bool(jnp.all(ours == theirs))
        return None if alike else "the candidates are others"

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "low": list(self.low),
            "high": list(self.high),
            "candidates": None if self.candidates is None else np.asarray(self.candidates).tolist(),
            "logarithmic": list(self.logarithmic),
            "whole": list(self.whole),
            "costs": list(self.costs),
            "capacity": self.capacity,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "SearchSpace":
        """What `to_json` wrote.

        Raises `KeyError`, `TypeError`, `ValueError` or `SpecificationError` for anything else.
        """
        candidates = stored["candidates"]
        return cls(
            tuple(map(float, stored["low"])),
            tuple(map(float, stored["high"])),
            None if candidates is None else jnp.asarray(candidates, jnp.float32),
            tuple(map(bool, stored["logarithmic"])),
            tuple(map(bool, stored["whole"])),
            tuple(map(float, stored["costs"])),
            int(stored["capacity"]),
        )

    def _bounds(self, axes: int):
        log = _row(self.logarithmic or (False,) * self.size, axes)
        ends = (_row(ends, axes) for ends in (self.low, self.high))
        low, high = (np.where(log, np.log(np.where(log, x, 1.0)), x) for x in ends)
        return low, high, log


def _row(values: tuple[Any, ...], axes: int) -> np.ndarray:
    """The values of the components, along the last of so many axes."""
    return np.asarray(values).reshape((1,) * (axes - 1) + (-1,))


def _said(values: tuple[Any, ...]) -> str:
    return "(" + ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) + ")"
