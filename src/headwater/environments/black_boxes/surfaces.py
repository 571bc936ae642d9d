"""Surfaces on which methods are usually compared, turned so that more is better."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractBlackBox


class Branin(AbstractBlackBox):
    """Branin's function of two components, with three maxima alike.

    **Arguments:** `noise`: of an evaluation.
    """

    name: ClassVar[str] = "branin"
    reference_returns: ClassVar[None] = None

    noise: float | Float[Array, ""] = 0.0

    @property
    def space(self) -> SearchSpace:
        return SearchSpace((-5.0, 0.0), (10.0, 15.0))

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        x, y = point[0], point[1]
        bent = y - 5.1 / (4.0 * jnp.pi**2) * x**2 + 5.0 / jnp.pi * x - 6.0
        return -(bent**2 + 10.0 * (1.0 - 1.0 / (8.0 * jnp.pi)) * jnp.cos(x) + 10.0)

    def highest(self, instance) -> Float[Array, ""]:
        return jnp.asarray(-0.39788735)


class Hartmann(AbstractBlackBox):
    """Hartmann's function of six components, a sum of four hills.

    **Arguments:** `noise`: of an evaluation.
    """

    name: ClassVar[str] = "hartmann"
    reference_returns: ClassVar[None] = None

    noise: float | Float[Array, ""] = 0.0

    @property
    def space(self) -> SearchSpace:
        return SearchSpace((0.0,) * 6, (1.0,) * 6)

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        apart = (point[None, :] - jnp.asarray(_TOPS, jnp.float32)) ** 2
        hills = jnp.exp(-jnp.sum(jnp.asarray(_STEEPNESS, jnp.float32) * apart, axis=1))
        return jnp.asarray([1.0, 1.2, 3.0, 3.2]) @ hills

    def highest(self, instance) -> Array:
        return jnp.asarray(3.3223680)


_STEEPNESS = np.array(
    [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ]
)
_TOPS = 1e-4 * np.array(
    [
        [1312.0, 1696.0, 5569.0, 124.0, 8283.0, 5886.0],
        [2329.0, 4135.0, 8307.0, 3736.0, 1004.0, 9991.0],
        [2348.0, 1451.0, 3522.0, 2883.0, 3047.0, 6650.0],
        [4047.0, 8828.0, 8732.0, 5743.0, 1091.0, 381.0],
    ]
)
