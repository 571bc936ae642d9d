"""Smooth random functions on a finite set of points."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractBlackBox

_WAVES = 1_000


class SmoothFunction(AbstractBlackBox):
    """A draw of a Gaussian process with a squared-exponential kernel and unit variance.

    It is a sum of a thousand waves, which is such a draw but for their number.

    **Arguments:** `points`: how many candidates there are: equally far apart in one component,
    drawn uniformly in several; `components`: of each; `length_scale`: of the kernel, where
    components lie between 0 and 1; `noise`: of an evaluation; `seed`: of the instance.
    """

    name: ClassVar[str] = "smooth-function"
    reference_returns: ClassVar[None] = None

    points: int = eqx.field(static=True, default=80)
    components: int = eqx.field(static=True, default=1)
    length_scale: float | Float[Array, ""] = 0.15
    noise: float | Float[Array, ""] = 0.01
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        if self.points < 2 or self.components < 1:
            raise SpecificationError(
                f"points = {self.points}, components = {self.components}: at least 2 points of 1 "
                "component are needed"
            )

    @property
    def space(self) -> SearchSpace:
        ends = (0.0,) * self.components, (1.0,) * self.components
        return SearchSpace(*ends, self._candidates())

    def reset(self) -> tuple[Array, Array, Array]:
        """Frequencies, phases and amplitudes of the waves."""
        keys = jax.random.split(jax.random.key(self.seed), 4)
        frequency = jax.random.normal(keys[1], (_WAVES, self.components)) / self.length_scale
        phase = 2.0 * jnp.pi * jax.random.uniform(keys[2], (_WAVES,))
        return frequency, phase, jax.random.normal(keys[3], (_WAVES,)) * jnp.sqrt(2.0 / _WAVES)

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        return self._at(instance, point)

    def highest(self, instance) -> Float[Array, ""]:
        return jnp.max(jax.vmap(lambda x: self._at(instance, x))(self._candidates()))

    @staticmethod
    def _at(instance, point) -> Float[Array, ""]:
        frequency, phase, amplitude = instance
        return amplitude @ jnp.cos(frequency @ point + phase)

    def _candidates(self) -> Float[Array, "candidate component"]:
        if self.components == 1:
            return jnp.linspace(0.0, 1.0, self.points)[:, None]
        key = jax.random.split(jax.random.key(self.seed), 4)[0]
        return jax.random.uniform(key, (self.points, self.components))
