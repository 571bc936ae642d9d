"""Eligibility traces, and steps along them that do not overshoot."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Number = float | Float[Array, ""]


def no_trace(weights: Any) -> Any:
    """A trace of zeros for a tree of weights."""
    return jax.tree.map(jnp.zeros_like, weights)


def accumulated(trace: Any, gradient: Any, decay: Number) -> Any:
    """`decay·z + gradient`; the decay is γλ."""
    return jax.tree.map(lambda z, g: decay * z + g, trace, gradient)


def cleared(trace: Any, clear: Bool[Array, ""]) -> Any:
    """`trace`, or zeros where `clear`."""
    return jax.tree.map(lambda z: jnp.where(clear, 0.0, z), trace)


def step_along(
    weights: Any,
    trace: Any,
    error: Float[Array, ""],
    *,
    learning_rate: Number,
    kappa: Number,
    bounded: bool,
) -> tuple[Any, Float[Array, ""]]:
    r"""One step of overshooting-bounded gradient descent (ObGD), up `error · trace`.

    $M = \alpha\kappa\bar\delta\lVert z\rVert_1$ with $\bar\delta = \max(|\delta|, 1)$ and the norm
    taken over all weights together, and $w \leftarrow w + \alpha / \max(M, 1) \cdot \delta z$.

    **Arguments:** `weights`, `trace`: trees of one structure; `error`: δ; `learning_rate`: α;
    `kappa`: κ; `bounded`: without it the step size is α.

    **Returns:** the new weights, and the step size that was used.
    """
    size = jnp.asarray(learning_rate, jnp.float32)
    if bounded:
        length = sum(jnp.sum(jnp.abs(z)) for z in jax.tree.leaves(trace))
        overshooting = size * kappa * jnp.maximum(jnp.abs(error), 1.0) * length
        size = size / jnp.maximum(overshooting, 1.0)
    return jax.tree.map(lambda w, z: w + size * error * z, weights, trace), size
