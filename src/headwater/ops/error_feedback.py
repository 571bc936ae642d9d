"""Compressed gradients whose errors are made up for: EF21 and its weighted version."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.fields import check_choice

Mean = Literal["arithmetic", "quadratic"]
"""Of the workers' smoothness constants: in the newer bound on the step, and in the older one."""


def largest(vector: Float[Array, "*batch number"], count: int) -> Float[Array, "*batch number"]:
    """The `count` numbers of largest size, and zeros in the places of the others (Top-K)."""
    if count >= vector.shape[-1]:
        return vector
    _, places = jax.lax.top_k(jnp.abs(vector), count)
    kept = jnp.take_along_axis(vector, places, axis=-1)
    return jnp.put_along_axis(jnp.zeros_like(vector), places, kept, axis=-1, inplace=False)


def told(
    known: Float[Array, "worker number"],
    gradients: Float[Array, "worker number"],
    weights: Float[Array, " worker"],
    count: int,
) -> tuple[Float[Array, "worker number"], Float[Array, " number"]]:
    r"""One round of EF21-W: each worker sends the largest changes of what is known of its gradient.

    $g_i \leftarrow g_i + C(\nabla f_i / (n w_i) - g_i)$, where $C$ keeps `count` numbers. Since $C$
    of a multiple is the multiple of $C$, the direction is the same whatever the weights are.

    **Arguments:** `known`: $g_i$, zeros before the first round; `weights`: $w_i$, of sum 1; the
    same for all: EF21.

    **Returns:** the new $g_i$, and the direction $\sum_i w_i g_i$ to descend along.
    """
    scale = 1.0 / (weights.shape[0] * weights[:, None])
    known = known + largest(gradients * jnp.broadcast_to(scale, gradients.shape) - known, count)
    return known, weights @ known


def safe_step(
    smoothness: Float[Array, " worker"],
    whole: Float[Array, ""],
    share: float,
    mean: Mean = "arithmetic",
) -> Float[Array, ""]:
    r"""The largest step for which descent is proved: $1 / (L + \bar L \xi(\alpha))$.

    $\xi(\alpha) = (1 + \sqrt{1 - \alpha}) / \alpha - 1$.

    **Arguments:** `smoothness`: $L_i$ of each worker's loss; `whole`: $L$ of their mean; `share`:
    α, of the numbers that are sent; `mean`: which mean $\bar L$ is, see `Mean`.
    """
    check_choice(mean, Mean, "mean")
    average = jnp.mean(smoothness) if mean == "arithmetic" else jnp.sqrt(jnp.mean(smoothness**2))
    return 1.0 / (whole + average * ((1.0 + jnp.sqrt(1.0 - share)) / share - 1.0))
