"""What a black box is: a function of points, evaluated with noise, at one or several fidelities."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.search_space import SearchSpace


class AbstractBlackBox(eqx.Module):
    """A black box in pure JAX, of which more is better.

    A class that sets `name` as a `ClassVar` is found by `make`. `jax.vmap` over the fields that are
    arrays maps instances.
    """

    name: eqx.AbstractVar[str]
    reference_returns: eqx.AbstractVar[tuple[float, float] | None]
    noise: eqx.AbstractVar[float | Float[Array, ""]]
    """The standard deviation of an evaluation."""
    space: eqx.AbstractVar[SearchSpace]
    """Where it may be evaluated, and at what cost."""

    def reset(self) -> Any:
        """What an instance is made of, computed once."""
        return None

    @abc.abstractmethod
    def mean_value(
        self, instance: Any, point: Float[Array, " component"], fidelity: Int[Array, ""]
    ) -> Float[Array, ""]:
        """The value without noise, exact.

        **Arguments:** `instance`: of `reset`; `point`: in the user's units.
        """

    def highest(self, instance: Any) -> Float[Array, ""] | None:
        """The maximum at the last fidelity; `None` where it is not known."""
        return None

    def value(self, mean: Float[Array, ""], *, key: PRNGKeyArray) -> Float[Array, ""]:
        """An evaluation whose mean is this."""
        return mean + self.noise * jax.random.normal(key, mean.shape)


class AbstractExactBox(AbstractBlackBox):
    """A black box without noise whose evaluations are dear, so that no point is evaluated twice."""


def require_finite(black_box: AbstractBlackBox, finite: bool) -> None:
    """Raises `DataError` unless all that `black_box` returned is finite."""
    if not finite:
        raise DataError(
            f"{black_box.name} returned a value that is not finite: give such points a low value, "
            "or narrow the space"
        )


class BlackBox(AbstractBlackBox):
    """A function of one's own, in JAX.

    **Arguments:** `function`: from a point `[component]` in the units of `space` to a number, of
    which more is better, or from a point and a fidelity where there are several; `space`; `name`;
    `noise`: standard deviation of what is added to it; `maximum`: where that is known, for regret.

    Raises `SpecificationError` if `function` is none.
    """

    function: Callable[..., Any] = eqx.field(static=True)
    space: SearchSpace
    name: str = eqx.field(static=True, default="black-box")
    noise: float | Float[Array, ""] = 0.0
    maximum: float | None = None
    reference_returns: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not callable(self.function):
            raise SpecificationError(
                f"a black box is a function of a point, not a {type(self.function).__name__}"
            )

    def mean_value(self, instance, point, fidelity) -> Float[Array, ""]:
        several = self.space.fidelities > 1
        found = self.function(point, fidelity) if several else self.function(point)
        found = jnp.asarray(found, jnp.float32)
        if found.size != 1:
            raise SpecificationError(
                f"the black box returns shape {found.shape}: one number for each point is needed"
            )
        return found.reshape(())

    def highest(self, instance) -> Float[Array, ""] | None:
        return None if self.maximum is None else jnp.asarray(self.maximum, jnp.float32)
