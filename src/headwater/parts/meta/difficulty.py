"""How hard it is to find the best arm, and the instances that are not harder than so much."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HALVINGS = 24
"""Steps of a bisection: what float32 can tell apart."""


def difficulty(means: Float[Array, "*some arm"]) -> Float[Array, "*some"]:
    r"""The mean of $\Delta_a^{-2}$ over all arms but the best, whose gaps are $\Delta_a$.

    At least one for means in [0, 1]; infinite where two arms are best.
    """
    first = _first_best(means)
    top = jnp.max(means, axis=-1, keepdims=True)
    gaps = jnp.broadcast_to(top, means.shape) - means
    # That of the best itself is nought.
    return jnp.sum(jnp.where(first > 0.0, 0.0, 1.0 / gaps**2), axis=-1) / (means.shape[-1] - 1)


def within_class(
    means: Float[Array, "*some arm"], hardest: Float[Array, "*some"]
) -> Float[Array, "*some arm"]:
    """Instances of at most a difficulty: moved as little as is needed towards the easiest one.

    The easiest has the same best arm, of mean one, and others of mean zero; on the way to it all
    gaps grow.

    **Arguments:** `hardest`: more than one, to which alone the easiest would do.
    """
    easiest = _first_best(means)
    hardest = jnp.broadcast_to(hardest, means.shape[:-1])

    def moved(share: Float[Array, "*some"]) -> Float[Array, "*some arm"]:
        share = jnp.broadcast_to(share[..., None], means.shape)
        return means + share * (easiest - means)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        inside = difficulty(moved(middle)) <= hardest
        return jnp.where(inside, low, middle), jnp.where(inside, middle, high)

    start = jnp.zeros_like(means[..., 0])
    _, high = jax.lax.fori_loop(0, _HALVINGS, halve, (start, start + 1.0))
    return jnp.where((difficulty(means) <= hardest)[..., None], means, moved(high))


def _first_best(means: Float[Array, "*some arm"]) -> Float[Array, "*some arm"]:
    """One for the best arm, of equals the first, and nought for others."""
    return jax.nn.one_hot(jnp.argmax(means, axis=-1), means.shape[-1])
