"""How wrong a learned model of a finite process is, exactly."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.planning import optimal_values


def worst_model_error(
    process: FiniteProcess, transition: Float[Array, "*task horizon state action state"]
) -> Float[Array, "*task"]:
    """Largest total variation distance, per step, that any policy meets on average.

    Value iteration in the true process finds it, with the distances as rewards. It is between zero
    and one; no policy's return, of rewards that add up to at most one, is wrong by more than
    `horizon` times as much.

    **Arguments:** `process`: the true one, or several, stacked; `transition`: learned, of each.
    """
    if process.reward.ndim == 4:
        return eqx.filter_vmap(worst_model_error)(process, transition)
    distance = 0.5 * jnp.sum(jnp.abs(process.transition - transition), axis=-1)
    met = FiniteProcess(process.transition, distance, process.initial)
    return jnp.dot(process.initial, optimal_values(met).value[0]) / process.horizon
