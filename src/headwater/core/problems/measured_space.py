"""What a method is told that looks for many solutions which differ in what they do."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace


class MeasuredSpace(eqx.Module):
    """Where solutions are looked for, and what is measured of each beside its value.

    **Arguments:** `space`: of solutions; `measure_low`, `measure_high`: what each measure lies
    between, in its own units; `frame_size`: numbers of the picture of what a solution did (0: there
    is none); `shapes`: of the arrays that the components are the numbers of, one after the other
    (empty: they are in no arrays); `seeds`: solutions that are known beforehand, in the user's
    units, for methods that begin with them.

    Raises `SpecificationError` for what is no such space.
    """

    space: SearchSpace
    measure_low: tuple[float, ...] = eqx.field(static=True)
    measure_high: tuple[float, ...] = eqx.field(static=True)
    frame_size: int = eqx.field(static=True, default=0)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True, default=())
    seeds: Float[Array, "seed component"] | None = None

    def __check_init__(self):
        low, high = self.measure_low, self.measure_high
        if not low or len(low) != len(high):
            raise SpecificationError(
                "measures need as many lower bounds as upper ones, and at least one, not "
                f"{len(low)} and {len(high)}"
            )
        for i, (least, most) in enumerate(zip(low, high)):
            if not (math.isfinite(least) and math.isfinite(most) and least < most):
                raise SpecificationError(
                    f"measure {i} lies between {least:g} and {most:g}: two finite bounds are "
                    "needed, the lower one first"
                )
        if self.frame_size < 0:
            raise SpecificationError(f"frame_size = {self.frame_size}: it must be at least 0")
        if self.space.candidates is not None:
            raise SpecificationError(
                "solutions are varied, so that they need bounds and not a list of candidates"
            )
        held = sum(math.prod(shape) for shape in self.shapes)
        if self.shapes and held != self.size:
            raise SpecificationError(
                f"arrays of the shapes {self.shapes} hold {held} numbers, and a solution has "
                f"{self.size}"
            )
        given: Any = self.seeds
        # Not what stands for an array while a program is traced or mapped.
        whole = isinstance(given, np.ndarray | jnp.ndarray) and given.ndim == 2
        if whole and (given.shape[1] != self.size or not given.shape[0]):
            raise SpecificationError(
                f"seeds have shape {given.shape}: rows of {self.size} components are needed"
            )

    @property
    def size(self) -> int:
        """Number of components of a solution."""
        return self.space.size

    @property
    def measures(self) -> int:
        """Number of measures."""
        return len(self.measure_low)

    @property
    def unit_seeds(self) -> Float[Array, "seed component"] | None:
        """The seeds in the unit cube."""
        return None if self.seeds is None else self.space.to_unit(self.seeds)

    @property
    def capacity(self) -> int:
        """Evaluations that there may be."""
        return self.space.capacity

    def with_capacity(self, capacity: int) -> "MeasuredSpace":
        """The same space, in which there may be so many evaluations."""
        return dataclasses.replace(self, space=dataclasses.replace(self.space, capacity=capacity))

    def require_frames(self, method: str) -> int:
        """The size of a frame. Raises `SpecificationError` if there is none."""
        if not self.frame_size:
            raise SpecificationError(
                f"{method} learns from frames what solutions do, and here are none: take "
                "NoveltySearch or SERENE, or give a black box with frames"
            )
        return self.frame_size

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "space": self.space.to_json(),
            "measure_low": list(self.measure_low),
            "measure_high": list(self.measure_high),
            "frame_size": self.frame_size,
            "shapes": [list(shape) for shape in self.shapes],
            "seeds": None if self.seeds is None else np.asarray(self.seeds).tolist(),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "MeasuredSpace":
        """What `to_json` wrote.

        Raises `KeyError`, `TypeError`, `ValueError` or `SpecificationError` for anything else.
        """
        seeds = stored["seeds"]
        return cls(
            SearchSpace.from_json(stored["space"]),
            tuple(map(float, stored["measure_low"])),
            tuple(map(float, stored["measure_high"])),
            int(stored["frame_size"]),
            tuple(tuple(map(int, shape)) for shape in stored["shapes"]),
            None if seeds is None else jnp.asarray(seeds, jnp.float32),
        )
