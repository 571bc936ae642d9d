"""Descending with losses alone: two of them, on either side, and the noise drawn once more."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

Tree = TypeVar("Tree")
Number = float | Float[Array, ""]

_SEEDS = 2**24
"""So many different ones: those that float32, as which they are logged, holds exactly."""


def random_seed(key: PRNGKeyArray) -> Int[Array, ""]:
    """A seed that survives being logged as float32."""
    return jax.random.randint(key, (), 0, _SEEDS)


def noise(tree: Tree, seed: Int[Array, ""]) -> Tree:
    """Standard normal noise like the arrays of `tree`: for one seed always the same."""
    leaves, structure = jax.tree.flatten(tree)
    key = jax.random.key(seed)
    drawn = [
        jax.random.normal(jax.random.fold_in(key, i), leaf.shape).astype(leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


def slope(
    loss: Callable[[Any], Float[Array, ""]], tree: Any, seed: Int[Array, ""], distance: Number
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Of `loss` along the noise of `seed`, by its values `distance` either way.

    **Returns:** the slope, and the mean of the two losses, which are computed one after the other.
    """

    def at(side):
        moved = jax.tree.map(
            lambda x, z: x + jnp.asarray(side * distance, x.dtype) * z, tree, noise(tree, seed)
        )
        return loss(moved)

    there, back = jax.lax.map(at, jnp.asarray([1.0, -1.0]))
    return (there - back) / (2.0 * distance), 0.5 * (there + back)


def descended(
    tree: Tree,
    seed: Int[Array, ""],
    along: Float[Array, ""],
    learning_rate: Number,
    weight_decay: Number = 0.0,
) -> Tree:
    """One step against the noise of `seed`, in proportion to the slope `along` it.

    The same bits in whatever program it is compiled into.
    """

    def step(x, z):
        # Compilers round a product and a sum once where they see both, and do not see both
        # everywhere.
        alone = jax.lax.optimization_barrier
        change = alone(along * alone(z.astype(jnp.float32))) + alone(weight_decay * x)
        return (x - alone(learning_rate * alone(change))).astype(x.dtype)

    return jax.tree.map(step, tree, noise(tree, seed))


def replayed(
    tree: Tree,
    seeds: Int[Array, " step"],
    slopes: Float[Array, " step"],
    learning_rates: Float[Array, " step"],
    weight_decay: Number = 0.0,
) -> Tree:
    """The weights that a run ended with, from those that it began with and two numbers a step."""

    def step(tree, logged):
        seed, along, rate = logged
        return descended(tree, seed, along, rate, weight_decay), None

    return jax.lax.scan(step, tree, (seeds, slopes, learning_rates))[0]
