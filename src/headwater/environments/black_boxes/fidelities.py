"""Surfaces that can be evaluated cheaply and less exactly, turned so that more is better."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractBlackBox

_SIDE, _CHEAP = 30, 0.1
_WAVES, _LENGTH = 200, 0.15


class BraninFidelities(AbstractBlackBox):
    """Branin's function with mean 0 and deviation 1, on a grid of 30 by 30 points.

    At a tenth of the cost there is the function with a smooth wave added to it.

    **Arguments:** `fidelity_gap`: height of the wave; `fidelities`: 1 for the function alone;
    `noise`: of an evaluation.
    """

    name: ClassVar[str] = "branin-fidelities"
    reference_returns: ClassVar[None] = None

    fidelity_gap: float | Float[Array, ""] = 0.1
    fidelities: int = eqx.field(static=True, default=2)
    noise: float | Float[Array, ""] = 0.0

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(
            (-5.0, 0.0), (10.0, 15.0), _grid(), costs=(_CHEAP, 1.0)[-self.fidelities :]
        )

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        x, y = point[0], point[1]
        wave = jnp.sin(2.0 * jnp.pi * (2.0 * (x + 5.0) / 15.0 + 1.5 * y / 15.0))
        cheap = fidelity < self.fidelities - 1
        return self._exact(point) + jnp.where(cheap, self.fidelity_gap * wave, 0.0)

    def highest(self, instance) -> Float[Array, ""]:
        return jnp.max(jax.vmap(self._exact)(_grid()))

    @staticmethod
    def _exact(point) -> Float[Array, ""]:
        x, y = point[0], point[1]
        bent = y - 5.1 / (4.0 * jnp.pi**2) * x**2 + 5.0 / jnp.pi * x - 6.0
        raw = bent**2 + 10.0 * (1.0 - 1.0 / (8.0 * jnp.pi)) * jnp.cos(x) + 10.0
        # Picheny, Wagner and Ginsbourger (2013): over the square its mean and deviation.
        return (54.81 - raw) / 51.95


class Forrester(AbstractBlackBox):
    """Forrester's pair of functions of one component: the cheap one is a tenth as dear.

    The function is (6x - 2)² sin(12x - 4), and the cheap one is half of it plus 10x - 10.

    **Arguments:** `related`: the cheap function is that; else it is a draw of a Gaussian process
    of the same size, which says nothing of the other; `points`: candidates, equally far apart, or
    0 for anywhere; `fidelities`: 1 for the function alone;
    `noise`: of an evaluation; `seed`: of a cheap function that is drawn.
    """

    name: ClassVar[str] = "forrester"
    reference_returns: ClassVar[None] = None

    related: bool | Bool[Array, ""] = True
    points: int = eqx.field(static=True, default=0)
    fidelities: int = eqx.field(static=True, default=2)
    noise: float | Float[Array, ""] = 0.0
    seed: int | Int[Array, ""] = 0

    @property
    def space(self) -> SearchSpace:
        candidates = jnp.linspace(0.0, 1.0, self.points)[:, None] if self.points else None
        return SearchSpace((0.0,), (1.0,), candidates, costs=(_CHEAP, 1.0)[-self.fidelities :])

    def reset(self) -> tuple[Array, Array, Array]:
        """Frequencies, phases and amplitudes of the waves of a cheap function that is drawn."""
        keys = jax.random.split(jax.random.key(self.seed), 3)
        phase = 2.0 * jnp.pi * jax.random.uniform(keys[1], (_WAVES,))
        amplitude = jax.random.normal(keys[2], (_WAVES,)) * 5.0 * jnp.sqrt(2.0 / _WAVES)
        return jax.random.normal(keys[0], (_WAVES,)) / _LENGTH, phase, amplitude

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        x = point[0]
        exact = -((6.0 * x - 2.0) ** 2) * jnp.sin(12.0 * x - 4.0)
        frequency, phase, amplitude = instance
        drawn = amplitude @ jnp.cos(frequency * x + phase)
        cheap = jnp.where(self.related, 0.5 * exact - 10.0 * (x - 0.5) + 5.0, drawn)
        return jnp.where(fidelity < self.fidelities - 1, cheap, exact)

    def highest(self, instance) -> Float[Array, ""]:
        # Of 1,001 points, say, the best is as high but for 1e-4.
        return jnp.asarray(6.0207401)


def _grid() -> Float[Array, "point component"]:
    x, y = jnp.linspace(-5.0, 10.0, _SIDE), jnp.linspace(0.0, 15.0, _SIDE)
    return jnp.stack([jnp.repeat(x, _SIDE), jnp.tile(y, _SIDE)], axis=1)
