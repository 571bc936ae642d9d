"""Quadratic functions, whose maximum and curvature are known."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractBlackBox


class QuadraticFunction(AbstractBlackBox):
    r"""$-\frac12 (x - x_0)^\top A (x - x_0)$ in a box from -2 to 2, with $x_0$ in a ball.

    **Arguments:** `spectrum`: eigenvalues of A, as many as there are components; `rotated`: whether
    its eigenvectors are random, or the axes; `distance`: of $x_0$ from the middle at most; `noise`:
    of an evaluation; `degrees`: of freedom of Student's distribution, scaled to that deviation,
    where the noise is not normal: more than 2; `seed`: of the instance.
    """

    name: ClassVar[str] = "quadratic-function"
    reference_returns: ClassVar[None] = None

    spectrum: tuple[float, ...] | Float[Array, " component"] = (10.0, 1.0, 1.0)
    rotated: bool = eqx.field(static=True, default=True)
    distance: float | Float[Array, ""] = 0.5
    noise: float | Float[Array, ""] = 1.0
    degrees: int | None = eqx.field(static=True, default=None)
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        given = self.spectrum
        if isinstance(given, tuple) and (not given or min(given) <= 0.0):
            raise SpecificationError(
                f"spectrum = {self.spectrum}: at least one eigenvalue is needed, and all of them "
                "more than 0"
            )
        if self.degrees is not None and self.degrees <= 2:
            raise SpecificationError(
                f"degrees = {self.degrees}: the noise has a standard deviation with more than 2"
            )

    @property
    def space(self) -> SearchSpace:
        size = len(self.spectrum)
        return SearchSpace((-2.0,) * size, (2.0,) * size)

    def reset(self) -> tuple[Array, Array]:
        """The Hessian of the negative, and where the maximum is."""
        size, key = len(self.spectrum), jax.random.key(self.seed)
        # Two coordinates of a uniform point on a sphere left out, the others are uniform in a ball.
        place = jax.random.normal(key, (size + 2,))
        hessian = jnp.diag(jnp.asarray(self.spectrum, jnp.float32))
        if self.rotated:
            # Reflected at a random plane: the mirror images of the axes are orthogonal as well.
            across = jax.random.normal(jax.random.fold_in(key, 1), (size,))
            across = across / jnp.linalg.norm(across)
            basis = jnp.eye(size) - 2.0 * jnp.outer(across, across)
            hessian = basis @ hessian @ basis
        return hessian, self.distance * place[:size] / jnp.linalg.norm(place)

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        hessian, highest = instance
        return -0.5 * (point - highest) @ hessian @ (point - highest)

    def highest(self, instance) -> Float[Array, ""]:
        return jnp.zeros(())

    def value(self, mean: Float[Array, ""], *, key: PRNGKeyArray) -> Float[Array, ""]:
        if self.degrees is None:
            return mean + self.noise * jax.random.normal(key, mean.shape)
        normal = jax.random.normal(key, (self.degrees + 1, *mean.shape))
        spread = jnp.sqrt(jnp.sum(normal[1:] ** 2, axis=0) / (self.degrees - 2.0))
        return mean + self.noise * normal[0] / spread
