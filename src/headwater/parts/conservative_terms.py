"""Pessimism about actions that were not logged, for continuous actions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def conservative_gap(
    proposed: Float[Array, "member proposal batch"],
    log_density: Float[Array, "proposal batch"],
    logged: Float[Array, "member batch"],
) -> Float[Array, "member batch"]:
    """`log Σ_j exp(Q(s, a_j) - log p(a_j)) - Q(s, a)`: how far proposals exceed logged actions.

    Dividing by the density of each proposal makes the sum estimate, up to a constant factor, the
    integral of `exp Q` over the box.
    """
    return jax.nn.logsumexp(proposed - log_density[None], axis=1) - logged


def raise_to_return(
    proposed: Float[Array, "member proposal batch"],
    return_to_go: Float[Array, " batch"],
    count: int,
) -> tuple[Float[Array, "member proposal batch"], Float[Array, ""]]:
    """Values of the policy's proposals, raised to the logged return where they lie below it.

    **Arguments:** `count`: the first proposals, uniform ones, which stay as they are.

    **Returns:** the values, and the share of the policy's proposals that were raised.
    """
    uniform, policy = proposed[:, :count], proposed[:, count:]
    bound = jnp.broadcast_to(return_to_go, policy.shape)
    raised = jnp.mean((policy < bound).astype(policy.dtype))
    # A value at its bound keeps its whole gradient, as if there were no bound.
    policy = jnp.where(policy < bound, bound, policy)
    return jnp.concatenate([uniform, policy], axis=1), raised
