"""What a black box is that says what each solution did, and not only what it is worth."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractBlackBox


class Measured(NamedTuple):
    """What one evaluation brings: a value, measures, and a frame or nothing."""

    value: Float[Array, ""]
    measures: Float[Array, " measure"]
    frame: Float[Array, " pixel"]


class AbstractMeasuredBox(AbstractBlackBox):
    """A black box in pure JAX that measures what a solution did.

    A class that sets `name` as a `ClassVar` is found by `make`. What needs no measures takes it as
    any other black box.
    """

    measured_space: eqx.AbstractVar[MeasuredSpace]
    """Solutions, and what is measured of them."""

    @abc.abstractmethod
    def measured(self, instance: Any, point: Float[Array, " component"]) -> Measured:
        """Value without noise, measures and frame, exact; `point` in the user's units."""

    @property
    def space(self) -> SearchSpace:
        """Where it may be evaluated."""
        return self.measured_space.space

    def mean_value(
        self, instance: Any, point: Float[Array, " component"], fidelity: Int[Array, ""]
    ) -> Float[Array, ""]:
        """The value alone; there is one fidelity."""
        return self.measured(instance, point).value


def require_within(
    box: AbstractMeasuredBox,
    least: Float[Array, "*seed measure"],
    most: Float[Array, "*seed measure"],
) -> None:
    """Raises `DataError` unless all measures that came out lie within their bounds.

    **Arguments:** `least`, `most`: of each measure so far.
    """
    space = box.measured_space
    low = np.asarray(least).reshape(-1, space.measures).min(axis=0)
    high = np.asarray(most).reshape(-1, space.measures).max(axis=0)
    for i, (least_allowed, most_allowed) in enumerate(zip(space.measure_low, space.measure_high)):
        slack = 1e-5 * (most_allowed - least_allowed)
        for value in (low[i], high[i]):
            if np.isfinite(value) and not least_allowed - slack <= value <= most_allowed + slack:
                raise DataError(
                    f"measure {i} of {box.name} came out at {value:g}, outside of "
                    f"{least_allowed:g} … {most_allowed:g}: widen its bounds, or clip it in the "
                    "black box"
                )


class MeasuredBox(AbstractMeasuredBox):
    """A function of one's own, in JAX, that measures what a solution did.

    **Arguments:** `function`: from a point `[component]` in the units of the space to a value and
    measures `[measure]`, and a frame `[pixel]` where the space has one; `measured_space`; `name`;
    `noise`: standard deviation of what is added to the value.

    Raises `SpecificationError` if `function` is none, or returns something else.
    """

    function: Callable[..., Any] = eqx.field(static=True)
    measured_space: MeasuredSpace
    name: str = eqx.field(static=True, default="measured-box")
    noise: float | Float[Array, ""] = 0.0
    reference_returns: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not callable(self.function):
            raise SpecificationError(
                f"a black box is a function of a point, not a {type(self.function).__name__}"
            )

    def measured(self, instance: Any, point: Float[Array, " component"]) -> Measured:
        space = self.measured_space
        found = self.function(point)
        parts = 3 if space.frame_size else 2
        if not isinstance(found, tuple) or len(found) != parts:
            wanted = "a value, measures and a frame" if parts == 3 else "a value and measures"
            raise SpecificationError(f"the black box has to return {wanted}, as a tuple")
        value, measures, frame = (jnp.asarray(x, jnp.float32) for x in (*found, jnp.zeros(0))[:3])
        sizes = ((value, 1, "value"), (measures, space.measures, "measures"))
        for part, size, what in (*sizes, (frame, space.frame_size, "frame")):
            if part.size != size:
                raise SpecificationError(
                    f"the black box returns shape {part.shape} as its {what}, where {size} "
                    f"number{'s are' if size > 1 else ' is'} needed"
                )
        return Measured(value.reshape(()), measures.reshape(-1), frame.reshape(-1))
