"""Steps of gradient descent on modules that hold arrays only."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

Parameters = TypeVar("Parameters")


def begin(optimiser: optax.GradientTransformation, parameters: PyTree) -> optax.OptState:
    """The optimiser's state for `parameters`."""
    return optimiser.init(parameters)


def descend(
    optimiser: optax.GradientTransformation,
    gradients: Parameters,
    optimiser_state: optax.OptState,
    parameters: Parameters,
) -> tuple[Parameters, optax.OptState]:
    """One step of `optimiser`: the new parameters and the new optimiser state."""
    updates, optimiser_state = optimiser.update(
        gradients,  # pyright: ignore[reportArgumentType]
        optimiser_state,
        parameters,  # pyright: ignore[reportArgumentType]
    )
    return eqx.apply_updates(parameters, updates), optimiser_state


def polyak(target: Parameters, online: Parameters, rate: float | Array) -> Parameters:
    """Exponential moving average of parameters: `(1 - rate) · target + rate · online`."""
    return jax.tree.map(lambda t, o: t + rate * (o - t), target, online)


def cosine_decay(step: Array, decay_updates: float | Array) -> Float[Array, ""]:
    """Factor falling from 1 to 0 along half a cosine over `decay_updates` steps."""
    return 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step / decay_updates, 1.0)))
