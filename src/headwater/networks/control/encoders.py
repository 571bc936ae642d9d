"""Networks that keep of an observation what is worth keeping."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.networks.control.flows import FlowEncoder
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser

_SMALLEST_VARIANCE = 1e-5


class Encoder(eqx.Module):
    """A perceptron whose outputs are standardised together and squashed into [-1, 1].

    **Arguments:** `inputs`: components of an observation; `size`: of what is kept of it.
    """

    network: MLP

    def __init__(self, inputs: int, size: int, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray):
        self.network = MLP(inputs, size, hidden_sizes, key=key)

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch feature"]:
        found = self.network(observation)
        centred = found - jnp.mean(found, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return jnp.tanh(centred / jnp.sqrt(variance + _SMALLEST_VARIANCE))


class Encoding(eqx.Module):
    """An encoder and the scale of observations that it expects."""

    encoder: Encoder | FlowEncoder
    normaliser: Normaliser

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch feature"]:
        return self.encoder(self.normaliser(observation))
