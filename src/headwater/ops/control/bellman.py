"""One-step backups and value losses."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def backup(
    reward: Float[Array, "*batch"],
    discount: float | Float[Array, ""],
    terminal: Bool[Array, "*batch"],
    next_value: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """`r + γ·(1 - terminal)·V(s')`. A truncated step still bootstraps; a terminal one ignores
    `next_value` altogether, even where it is not finite."""
    return reward + discount * jnp.where(terminal, 0.0, next_value)


def ensemble_error(
    predictions: Float[Array, "member *batch"], target: Float[Array, "*batch"]
) -> Float[Array, ""]:
    """Squared error averaged over the batch and summed over the members of an ensemble."""
    return jnp.mean((predictions - target[None]) ** 2) * predictions.shape[0]


def double_value(
    choosing: Float[Array, "*batch action"], judging: Float[Array, "*batch action"]
) -> Float[Array, "*batch"]:
    """The `judging` value of the action that `choosing` likes best: no maximum of one's own noise.

    **Arguments:** values of every discrete action from two networks (or twice from one, for the
    plain maximum).
    """
    best = jnp.argmax(choosing, axis=-1, keepdims=True)
    return jnp.take_along_axis(judging, best, axis=-1)[..., 0]
