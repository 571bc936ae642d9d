"""How near what is seen is to what is typical of a stage of a task."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_SMALLEST = 1e-6


class StageModel(eqx.Module):
    """A normal distribution of each feature within a stage, and the features that tell it.

    Distances are the logarithm of the mean over these features of squared deviations.

    **Arguments:** `mean`, `deviation`: of each feature; `chosen`: one for those that tell the stage
    from others, zero for the rest; `near`, `far`: mean distance of the frames of the stage, and of
    all others.
    """

    mean: Float[Array, "*stage feature"]
    deviation: Float[Array, "*stage feature"]
    chosen: Float[Array, "*stage feature"]
    near: Float[Array, "*stage"]
    far: Float[Array, "*stage"]

    def nearness(
        self, features: Float[Array, "*batch feature"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """One where features are as near to a single stage as its own frames are, zero where they
        are as far as others, and linear in the distance between.

        **Returns:** it, and the variance of what the chosen features say of it, each alone.
        """
        squares = self._squares(features)
        alone = self._rescaled(squares)
        apart = alone - jnp.broadcast_to(self._over_chosen(alone)[..., None], alone.shape)
        return self._rescaled(self._over_chosen(squares)), self._over_chosen(apart**2)

    def distance(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch"]:
        """Of features from a single stage."""
        return jnp.log(self._over_chosen(self._squares(features)) + _SMALLEST)

    def _squares(self, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature"]:
        away = features - jnp.broadcast_to(self.mean, features.shape)
        return (away / jnp.broadcast_to(self.deviation, features.shape)) ** 2

    def _rescaled(self, squares: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        room = jnp.maximum(self.far - self.near, _SMALLEST)
        return jnp.clip((self.far - jnp.log(squares + _SMALLEST)) / room, 0.0, 1.0)

    def _over_chosen(self, values: Float[Array, "*batch feature"]) -> Float[Array, "*batch"]:
        chosen = jnp.broadcast_to(self.chosen, values.shape)
        return jnp.sum(values * chosen, axis=-1) / jnp.maximum(jnp.sum(self.chosen), 1.0)


def moments(
    values: Float[Array, "*rows feature"], rows: Bool[Array, "*rows"]
) -> tuple[Float[Array, " feature"], Float[Array, " feature"]]:
    """Mean and standard deviation of each feature over the rows that are true; zeros of none."""
    flat, weight = values.reshape(-1, values.shape[-1]), rows.reshape(-1, 1).astype(jnp.float32)
    count = jnp.maximum(jnp.sum(weight), 1.0)
    mean = jnp.sum(flat * weight, axis=0) / count
    return mean, jnp.sqrt(jnp.sum(weight * (flat - mean[None]) ** 2, axis=0) / count)
