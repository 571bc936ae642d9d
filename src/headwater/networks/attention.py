"""A block of attention without an order of its own, for whatever is a set or has places added."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.networks.mlp import MLP, Activation

NEVER = -1e9
"""A score of attention or a logit that counts for nothing; finite, so that no gradient is NaN."""


class AttentionBlock(eqx.Module):
    """Attention of every token to those that are seen, then a network of each, both added to it.

    **Arguments:** `width`: of a token, a multiple of `heads`; `activation`: of the network, which
    has one hidden layer of twice the width.
    """

    mixing: Float[Array, "4 width width"]
    network: MLP
    heads: int = eqx.field(static=True)

    def __init__(
        self, width: int, heads: int = 1, *, activation: Activation = "relu", key: PRNGKeyArray
    ):
        mixing_key, network_key = jax.random.split(key)
        self.mixing = jax.random.normal(mixing_key, (4, width, width)) * width**-0.5
        self.network = MLP(width, width, (2 * width,), key=network_key, activation=activation)
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "*batch token width"],
        seen: Bool[Array, "*batch first"] | None = None,
    ) -> Float[Array, "*batch token width"]:
        """What is held of each token after the block.

        **Arguments:** `seen`: which of the first tokens are attended to, none of those after them
        is; `None`: all are.
        """
        first = x.shape[-2] if seen is None else seen.shape[-1]
        still = standardised(x)
        apart = lambda y: jnp.swapaxes(y.reshape(*y.shape[:-1], self.heads, -1), -2, -3)
        query = apart(still @ self.mixing[0])
        key, value = (apart(still[..., :first, :] @ weight) for weight in self.mixing[1:3])
        scores = query @ jnp.swapaxes(key, -1, -2) * query.shape[-1] ** -0.5
        if seen is not None:
            scores = jnp.where(
                jnp.broadcast_to(seen[..., None, None, :], scores.shape), scores, NEVER
            )
        found = jnp.swapaxes(jax.nn.softmax(scores, axis=-1) @ value, -2, -3)
        x = x + found.reshape(x.shape) @ self.mixing[3]
        return x + self.network(standardised(x))


def standardised(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """Each token at mean zero and variance one."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
