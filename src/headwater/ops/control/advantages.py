"""How much better actions turned out than was expected."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def generalised_advantages(
    surprise: Float[Array, "step *batch"],
    goes_on: Bool[Array, "step *batch"],
    decay: float | Float[Array, ""],
) -> Float[Array, "step *batch"]:
    r"""$A_t = \delta_t + \gamma\lambda A_{t+1}$, without the latter where nothing goes on.

    **Arguments:** `surprise`: δ, reward and next value less the value; `goes_on`: the next step
    belongs to the same episode; `decay`: γλ.
    """

    def backwards(later, now):
        surprise, goes_on = now
        total = surprise + decay * jnp.where(goes_on, later, 0.0)
        return total, total

    last = jnp.zeros_like(surprise[0])
    return jax.lax.scan(backwards, last, (surprise, goes_on), reverse=True)[1]
