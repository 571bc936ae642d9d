"""Standardisation of observations, kept beside the parameters so that no policy loses it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.records import Transitions
from headwater.core.spaces import Spaces

_SMALLEST_STD = 1e-3
"""Added to each standard deviation, as in TD3+BC, so that constant components stay finite."""


class Normaliser(eqx.Module):
    """Subtracts a mean and divides by a standard deviation, both fixed."""

    mean: Float[Array, " observation"]
    std: Float[Array, " observation"]

    def __init__(self, spaces: Spaces, enabled: bool):
        statistics = spaces.statistics
        if enabled and statistics is not None:
            self.mean = jnp.asarray(statistics.observation_mean)
            self.std = jnp.asarray(statistics.observation_std) + _SMALLEST_STD
        else:
            self.mean = jnp.zeros(spaces.observation_size)
            self.std = jnp.ones(spaces.observation_size)

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch observation"]:
        mean = jnp.broadcast_to(self.mean, observation.shape)
        return (observation - mean) / jnp.broadcast_to(self.std, observation.shape)

    def transitions(self, data: Transitions) -> Transitions:
        """`data` with both its observations standardised."""
        return eqx.tree_at(
            lambda d: (d.observation, d.next_observation),
            data,
            (self(data.observation), self(data.next_observation)),
        )
