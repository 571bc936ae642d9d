"""Sums of rewards along episodes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def discounted_returns_to_go(
    reward: Float[Array, " time"],
    last: Bool[Array, " time"],
    discount: float | Float[Array, ""],
) -> Float[Array, " time"]:
    """Discounted sum of rewards from each step to the end of its episode.

    **Arguments:** `reward`: rewards of episodes laid end to end; `last`: true on the last step of
    each episode; `discount`.
    """

    def backwards(following, step):
        r, ends = step
        total = r + discount * jnp.where(ends, 0.0, following)
        return total, total

    _, totals = jax.lax.scan(backwards, jnp.zeros((), reward.dtype), (reward, last), reverse=True)
    return totals
