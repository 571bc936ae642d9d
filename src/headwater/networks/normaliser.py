"""The units of what is learned, kept beside the parameters so that no policy loses them."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.records import Transitions
from headwater.core.spaces import Spaces

_SMALLEST_STD = 1e-3
"""Added to each standard deviation, as in TD3+BC, so that constant components stay finite."""


class Normaliser(eqx.Module):
    """Subtracts a mean and divides by a standard deviation, and multiplies rewards; all are fixed.

    **Arguments:** `spaces`; `enabled`: standardise observations by the statistics of `spaces`;
    `reward_scale`: what rewards, and so values, are multiplied by inside the method.
    """

    mean: Float[Array, " observation"]
    std: Float[Array, " observation"]
    reward_scale: Float[Array, ""]

    def __init__(self, spaces: Spaces, enabled: bool, reward_scale: float | Float[Array, ""] = 1.0):
        statistics = spaces.statistics
        if enabled and statistics is not None:
            self.mean = jnp.asarray(statistics.observation_mean)
            self.std = jnp.asarray(statistics.observation_std) + _SMALLEST_STD
        else:
            self.mean = jnp.zeros(spaces.observation_size)
            self.std = jnp.ones(spaces.observation_size)
        self.reward_scale = jnp.asarray(reward_scale, jnp.float32)

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch observation"]:
        mean = jnp.broadcast_to(self.mean, observation.shape)
        return (observation - mean) / jnp.broadcast_to(self.std, observation.shape)

    def transitions(self, data: Transitions) -> Transitions:
        """`data` with both its observations standardised and its rewards multiplied."""
        to_go = data.return_to_go
        return dataclasses.replace(
            data,
            observation=self(data.observation),
            next_observation=self(data.next_observation),
            reward=data.reward * self.reward_scale,
            return_to_go=None if to_go is None else to_go * self.reward_scale,
        )

    def in_units_of_reward(self, value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Values that a method learned, in the units of the data's rewards."""
        return value / self.reward_scale

    def unscaled(self) -> "Normaliser":
        """The same for observations, with rewards as they are."""
        return eqx.tree_at(lambda n: n.reward_scale, self, jnp.ones_like(self.reward_scale))
