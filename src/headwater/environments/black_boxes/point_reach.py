"""A point in a square that a small network moves: where it ends is what a solution did."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.measured_box import AbstractMeasuredBox, Measured

_HIDDEN = 5
_GENES = 2 * _HIDDEN + 1 + _HIDDEN * _HIDDEN + 1 + _HIDDEN * 2 + 1
_STEPS, _SPEED = 50, 0.05
_SIDE = 16
GOALS = ((0.7, 0.7), (-0.7, 0.5), (-0.4, -0.8), (0.8, -0.4))
"""The middles of the areas in which each step is worth one."""


class PointReach(AbstractMeasuredBox):
    """A network of two hidden layers moves a point for 50 steps from the middle of a square.

    Measured is where it ends, in [-1, 1]². The value counts the steps within one of four small
    areas, the first that it entered. The frame shows where it ends, in 16 × 16 pixels. A solution
    is the network's 48 numbers, a single bias for each layer.

    **Arguments:** `noise`: of the value; `radius`: half of the side of an area. At its default some
    thousand uniform solutions hold one that stays in each area for most of its steps.
    """

    name: ClassVar[str] = "point-reach"
    reference_returns: ClassVar[None] = None

    noise: float | Float[Array, ""] = 0.0
    radius: float | Float[Array, ""] = 0.1

    @property
    def measured_space(self) -> MeasuredSpace:
        space = SearchSpace((-5.0,) * _GENES, (5.0,) * _GENES)
        return MeasuredSpace(space, (-1.0, -1.0), (1.0, 1.0), _SIDE * _SIDE)

    def measured(self, instance, point: Float[Array, " component"]) -> Measured:
        place, steps = self.walk(point)
        return Measured(jnp.max(steps), place, picture(place))

    def walk(self, point: Float[Array, " component"]) -> tuple[Array, Array]:
        """Where the point ends, and the steps that count in each area."""
        first, second, last, biases = _layers(point)
        goals = jnp.asarray(GOALS)

        def step(carry, _):
            place, entered, steps = carry
            hidden = jnp.tanh(place @ first + biases[0])
            hidden = jnp.tanh(hidden @ second + biases[1])
            move = jnp.tanh(hidden @ last + biases[2])
            place = jnp.clip(place + _SPEED * move, -1.0, 1.0)
            inside = jnp.max(jnp.abs(place[None, :] - goals), axis=1) <= self.radius
            # Once an area was entered, only its steps count.
            counts = inside & (entered | ~jnp.any(entered))
            return (place, entered | counts, steps + counts.astype(jnp.float32)), None

        start = jnp.zeros(2), jnp.zeros(len(GOALS), bool), jnp.zeros(len(GOALS))
        place, _, steps = jax.lax.scan(step, start, None, _STEPS)[0]
        return place, steps


def picture(place: Float[Array, "2"]) -> Float[Array, " pixel"]:
    """A bright spot, smoothed, at a place in the square."""
    middle = (jnp.arange(_SIDE, dtype=jnp.float32) + 0.5) * (2.0 / _SIDE) - 1.0
    across, along = (jnp.exp(-0.5 * ((middle - x) / 0.15) ** 2) for x in (place[0], place[1]))
    return (along[:, None] * across[None, :]).reshape(-1)


def _layers(genes):
    ends = (2 * _HIDDEN, 1, _HIDDEN * _HIDDEN, 1, _HIDDEN * 2, 1)
    first, b1, second, b2, last, b3 = jnp.split(genes, [sum(ends[: i + 1]) for i in range(5)])
    shaped = (first.reshape(2, _HIDDEN), second.reshape(_HIDDEN, _HIDDEN))
    return *shaped, last.reshape(_HIDDEN, 2), (b1, b2, b3)
