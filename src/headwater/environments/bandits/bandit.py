"""What a bandit is: rounds, arms, and the exact mean reward of each."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.problems.arms import Arms

State = Any


class AbstractBandit(eqx.Module):
    """A bandit in pure JAX. A class that sets `name` as a `ClassVar` is found by `make`.

    Which instance it is follows from the field `seed`, so that all seeds of a run meet the same
    one; `jax.vmap` over `seed` maps instances.
    """

    name: eqx.AbstractVar[str]
    seed: eqx.AbstractVar[int | Int[Array, ""]]
    reference_returns: eqx.AbstractVar[tuple[float, float] | None]

    @property
    @abc.abstractmethod
    def problem(self) -> Arms:
        """What a method is told."""

    @abc.abstractmethod
    def reset(self) -> State:
        """The instance that `seed` draws, before the first round."""

    @abc.abstractmethod
    def show(
        self, state: State, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " context"], Float[Array, "arm feature"]]:
        """The context and the features of the arms in a round."""

    @abc.abstractmethod
    def mean_reward(
        self, state: State, context: Float[Array, " context"], features: Float[Array, "arm feature"]
    ) -> Float[Array, " arm"]:
        """What each arm earns in expectation, exact."""

    def reward(self, mean: Float[Array, "*some"], *, key: PRNGKeyArray) -> Float[Array, "*some"]:
        """Rewards with these means: by default one or nothing."""
        return (jax.random.uniform(key, mean.shape) < mean).astype(jnp.float32)

    def step(self, state: State, arm: Int[Array, ""], *, key: PRNGKeyArray) -> State:
        """The state after a round in which `arm` was pulled: by default the same."""
        return state

    @property
    def stationary(self) -> bool:
        """Whether mean rewards depend on the round and nothing that came before."""
        return True


def no_context(arms: int) -> tuple[Float[Array, "0"], Float[Array, "arm 0"]]:
    """What is shown where there is nothing to show."""
    return jnp.zeros(0), jnp.zeros((arms, 0))
