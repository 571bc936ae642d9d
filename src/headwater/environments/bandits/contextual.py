"""Bandits whose rewards depend on a context or on features of the arms."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.bandit import AbstractBandit


def _half_constant(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Random vectors of length one whose first number is √½: products of two lie in [0, 1]."""
    drawn = jax.random.normal(key, (*shape[:-1], shape[-1] - 1))
    drawn = drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)
    return jnp.concatenate([jnp.ones((*shape[:-1], 1)), drawn], axis=-1) * jnp.sqrt(0.5)


def _require_size(name: str, size: int) -> None:
    if size < 2:
        raise SpecificationError(f"{name} = {size}: it must be at least 2")


class LinearBandit(AbstractBandit):
    """Each arm has weights of its own: its mean reward is ⟨weights, context⟩.

    Contexts and weights are of length one, with a first number of √½; an arm earns one or nothing.

    **Arguments:** `arms`: how many; `context_size`: at least 2; `seed`: of the instance.
    """

    name: ClassVar[str] = "linear-bandit"
    reference_returns: ClassVar[None] = None

    arms: int = eqx.field(static=True, default=10)
    context_size: int = eqx.field(static=True, default=10)
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        _require_size("context_size", self.context_size)

    @property
    def problem(self) -> Arms:
        return Arms(self.arms, self.context_size)

    def reset(self) -> Float[Array, "arm context"]:
        return _half_constant(jax.random.key(self.seed), (self.arms, self.context_size))

    def show(self, state: Float[Array, "arm context"], *, key: PRNGKeyArray):
        return _half_constant(key, (self.context_size,)), jnp.zeros((self.arms, 0))

    def mean_reward(self, state, context, features) -> Float[Array, " arm"]:
        return state @ context


class FeatureBandit(AbstractBandit):
    """All arms share weights: the mean reward of one is ⟨weights, its features⟩.

    Both are of length one, with a first number of √½; an arm earns one or nothing.

    **Arguments:** `arms`: how many; `feature_size`: at least 2; `fresh`: draw new features in
    every round, and not once and for all; `seed`: of the instance.
    """

    name: ClassVar[str] = "feature-bandit"
    reference_returns: ClassVar[None] = None

    arms: int = eqx.field(static=True, default=100)
    feature_size: int = eqx.field(static=True, default=10)
    fresh: bool = eqx.field(static=True, default=False)
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        _require_size("feature_size", self.feature_size)

    @property
    def problem(self) -> Arms:
        fixed = None if self.fresh else self.reset()[1]
        return Arms(self.arms, 0, self.feature_size, fixed)

    def reset(self) -> tuple[Float[Array, " feature"], Float[Array, "arm feature"]]:
        weight_key, feature_key = jax.random.split(jax.random.key(self.seed))
        weights = _half_constant(weight_key, (self.feature_size,))
        return weights, _half_constant(feature_key, (self.arms, self.feature_size))

    def show(self, state, *, key: PRNGKeyArray):
        if not self.fresh:
            return jnp.zeros(0), state[1]
        return jnp.zeros(0), _half_constant(key, (self.arms, self.feature_size))

    def mean_reward(self, state, context, features) -> Float[Array, " arm"]:
        return features @ state[0]


class ClassificationBandit(AbstractBandit):
    """Arms are classes: the right one, as a random network of two layers has it, earns one.

    **Arguments:** `arms`: how many classes; `context_size`; `hidden_size`: of the network;
    `seed`: of the instance.
    """

    name: ClassVar[str] = "classification-bandit"
    reference_returns: ClassVar[None] = None

    arms: int = eqx.field(static=True, default=5)
    context_size: int = eqx.field(static=True, default=20)
    hidden_size: int = eqx.field(static=True, default=32)
    seed: int | Int[Array, ""] = 0

    @property
    def problem(self) -> Arms:
        return Arms(self.arms, self.context_size)

    def reset(self) -> tuple[Float[Array, "hidden context"], Float[Array, "arm hidden"]]:
        first, second = jax.random.split(jax.random.key(self.seed))
        shape = (self.hidden_size, self.context_size)
        return jax.random.normal(first, shape), jax.random.normal(
            second, (self.arms, self.hidden_size)
        )

    def show(self, state, *, key: PRNGKeyArray):
        return jax.random.normal(key, (self.context_size,)), jnp.zeros((self.arms, 0))

    def mean_reward(self, state, context, features) -> Float[Array, " arm"]:
        scores = state[1] @ jax.nn.relu(state[0] @ context)
        return (jnp.arange(self.arms) == jnp.argmax(scores)).astype(jnp.float32)
