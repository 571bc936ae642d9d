"""Bandits without contexts, whose arms earn one or nothing."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.bandit import AbstractBandit, no_context


class BernoulliState(eqx.Module):
    """The mean of each arm, and the round."""

    means: Float[Array, " arm"]
    round: Int[Array, ""]


class BernoulliBandit(AbstractBandit):
    """One arm is better by `gap` than all others, which are alike; or means are drawn uniformly.

    **Arguments:** `arms`: how many; `gap`: between the best and the others, whose mean is
    (1 − gap) / 2; 0 draws all means uniformly from [0, 1]; `period`: rounds after which the arms
    exchange their means at random, 0 for never; `seed`: of the instance.
    """

    name: ClassVar[str] = "bernoulli-bandit"
    reference_returns: ClassVar[None] = None

    arms: int = eqx.field(static=True, default=10)
    gap: float | Float[Array, ""] = 0.0
    period: int = eqx.field(static=True, default=0)
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        if self.period < 0:
            raise SpecificationError(f"period = {self.period}: it must be at least 0")
        if isinstance(self.gap, int | float) and not 0.0 <= self.gap <= 1.0:
            raise SpecificationError(f"gap = {self.gap:g}: it must lie between 0 and 1")

    @property
    def problem(self) -> Arms:
        return Arms(self.arms)

    def reset(self) -> BernoulliState:
        mean_key, best_key = jax.random.split(jax.random.key(self.seed))
        drawn = jax.random.uniform(mean_key, (self.arms,))
        best = jnp.arange(self.arms) == jax.random.randint(best_key, (), 0, self.arms)
        gap = jnp.asarray(self.gap, jnp.float32)
        alike = 0.5 - 0.5 * gap + jnp.where(best, gap, 0.0)
        return BernoulliState(jnp.where(gap > 0.0, alike, drawn), jnp.zeros((), jnp.int32))

    def show(self, state: BernoulliState, *, key: PRNGKeyArray):
        return no_context(self.arms)

    def mean_reward(self, state: BernoulliState, context, features) -> Float[Array, " arm"]:
        return state.means

    def step(self, state: BernoulliState, arm: Int[Array, ""], *, key: PRNGKeyArray):
        if not self.period:
            return state
        after = state.round + 1
        changed = jax.random.permutation(key, state.means)
        means = jnp.where(after % self.period == 0, changed, state.means)
        return BernoulliState(means, after)

    @property
    def stationary(self) -> bool:
        return not self.period
