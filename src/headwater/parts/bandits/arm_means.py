"""How often each arm was pulled, and what it earned on average."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.core.records import Pulls


class ArmMeans(eqx.Module):
    """Counts of pulls, and mean rewards (zero before the first)."""

    count: Int[Array, " arm"]
    mean: Float[Array, " arm"]

    @property
    def total(self) -> Int[Array, ""]:
        """Pulls of all arms."""
        return jnp.sum(self.count)


def no_means(arms: int) -> ArmMeans:
    """Before any pull."""
    return ArmMeans(jnp.zeros(arms, jnp.int32), jnp.zeros(arms))


def learn_means(means: ArmMeans, data: Pulls) -> ArmMeans:
    """After the pulls of a batch.

    Means move by their errors: a sum of rewards would stop growing once it is large.
    """
    count = means.count.at[data.arm].add(1)
    errors = jnp.zeros_like(means.mean).at[data.arm].add(data.reward - means.mean[data.arm])
    return ArmMeans(count, means.mean + errors / jnp.maximum(count, 1))
