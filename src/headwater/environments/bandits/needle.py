"""Bandits of which one arm earns anything, with features that nearly explain it."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.bandit import AbstractBandit

_ALIGNED = 0.95


class NeedleBandit(AbstractBandit):
    """One arm earns something and all others nothing, within `misspecification` of linear rewards.

    If the weights are sparse, they are one at a single feature. For each feature one arm has 0.95
    of it, so that any of these could be the needle; no other arm has more than `misspecification`
    of any feature. If they are dense, they are the features of the needle itself, which all other
    arms are nearly orthogonal to. Features have at most length one.

    **Arguments:** `arms`: how many; `feature_size`: at least 2, and for sparse weights at most
    `arms`; `misspecification`: what rewards hide of the linear ones, below 0.9; `dense`: whether
    all weights count; `noisy`: rewards are one or nothing, and not their means; `seed`: of the
    instance.
    """

    name: ClassVar[str] = "needle-bandit"
    reference_returns: ClassVar[None] = None

    arms: int = eqx.field(static=True, default=1_000)
    feature_size: int = eqx.field(static=True, default=20)
    misspecification: float = eqx.field(static=True, default=0.2)
    dense: bool = eqx.field(static=True, default=False)
    noisy: bool = eqx.field(static=True, default=False)
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        if self.feature_size < 2:
            raise SpecificationError(f"feature_size = {self.feature_size}: it must be at least 2")
        if not self.dense and self.arms < self.feature_size:
            raise SpecificationError(
                f"arms = {self.arms}: each of the {self.feature_size} features needs an arm"
            )
        if not 0.0 <= self.misspecification < 0.9:
            raise SpecificationError(
                f"misspecification = {self.misspecification:g}: it must be at least 0 and below 0.9"
            )

    @property
    def problem(self) -> Arms:
        return Arms(self.arms, 0, self.feature_size, self.reset()[0])

    def reset(self) -> tuple[Float[Array, "arm feature"], Float[Array, " arm"]]:
        """Features and mean rewards. The weights of one seed are alike for any number of arms."""
        weight_key, feature_key, place_key = jax.random.split(jax.random.key(self.seed), 3)
        drawn = _unit(jax.random.normal(feature_key, (self.arms, self.feature_size)))
        hidden = self.misspecification
        if self.dense:
            weights = drawn[jax.random.randint(weight_key, (), 0, self.arms)]
            along = drawn @ weights
            across = _unit(drawn - jnp.outer(along, weights))
            cut = jnp.clip(along, -hidden, hidden)
            turned = jnp.outer(cut, weights) + jnp.sqrt(1.0 - cut**2)[:, None] * across
            features = jnp.where(along[:, None] > 0.9999, weights[None], turned)
        else:
            size = self.feature_size
            own = jnp.eye(size, dtype=bool)
            rest = _unit(jnp.where(own, 0.0, drawn[:size])) * jnp.sqrt(1.0 - _ALIGNED**2)
            aligned = jnp.where(own, _ALIGNED, jnp.clip(rest, -hidden, hidden))
            others = jnp.clip(drawn[size:], -hidden, hidden)
            features = jax.random.permutation(place_key, jnp.concatenate([aligned, others]))
            weights = jax.nn.one_hot(jax.random.randint(weight_key, (), 0, size), size)
        exact = features @ weights
        return features, jnp.where(exact > 0.9, exact, 0.0)

    def show(self, state, *, key: PRNGKeyArray):
        return jnp.zeros(0), state[0]

    def mean_reward(self, state, context, features) -> Float[Array, " arm"]:
        return state[1]

    def reward(self, mean: Float[Array, "*some"], *, key: PRNGKeyArray) -> Float[Array, "*some"]:
        if self.noisy:
            return (jax.random.uniform(key, mean.shape) < mean).astype(jnp.float32)
        return mean


def _unit(rows: Float[Array, "row feature"]) -> Float[Array, "row feature"]:
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.maximum(length, 1e-6)
