"""Regression losses other than the mean square."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def expectile_error(
    difference: Float[Array, "*batch"], expectile: float | Float[Array, ""]
) -> Float[Array, "*batch"]:
    """`|τ - 1(u < 0)|·u²`: at τ = 0.5 half the square, near 1 an upper envelope of the targets."""
    weight = jnp.where(difference < 0.0, 1.0 - expectile, expectile)
    return weight * difference**2


def exponential_weight(
    advantage: Float[Array, "*batch"],
    beta: float | Float[Array, ""],
    largest: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """`min(exp(β·A), largest)`, without overflow."""
    return jnp.exp(jnp.minimum(beta * advantage, jnp.log(largest)))


def huber(difference: Float[Array, "*batch"], bound: float = 1.0) -> Float[Array, "*batch"]:
    """Half the square inside `±bound`, linear outside."""
    size = jnp.abs(difference)
    return jnp.where(size <= bound, 0.5 * difference**2, bound * (size - 0.5 * bound))
