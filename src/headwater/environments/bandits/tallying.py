"""Bandits whose rewards depend on how often an arm was pulled lately."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.bandit import AbstractBandit, no_context


class TallyingState(eqx.Module):
    """Mean rewards without and with full exposure, and the last arms."""

    fresh: Float[Array, " arm"]
    exposed: Float[Array, " arm"]
    last: Int[Array, " memory"]
    round: Int[Array, ""]


class TallyingBandit(AbstractBandit):
    """The mean reward of an arm grows with its share of the last `memory` pulls.

    It goes from 1 − u to 1 − v, with u from [0.5, 0.9] and v from [0.2, 0.6] drawn for each arm;
    arm 0 goes from 0.1 to 0.9, so that it is the worst at first and repeated the best.

    **Arguments:** `arms`: how many; `memory`: pulls that count, this one among them; `seed`: of the
    instance.
    """

    name: ClassVar[str] = "tallying-bandit"
    reference_returns: ClassVar[None] = None

    arms: int = eqx.field(static=True, default=8)
    memory: int = eqx.field(static=True, default=10)
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        if self.memory < 1:
            raise SpecificationError(f"memory = {self.memory}: it must be at least 1")

    @property
    def problem(self) -> Arms:
        return Arms(self.arms)

    @property
    def stationary(self) -> bool:
        return False

    def reset(self) -> TallyingState:
        first, second = jax.random.split(jax.random.key(self.seed))
        fresh = 1.0 - jax.random.uniform(first, (self.arms,), minval=0.5, maxval=0.9)
        exposed = 1.0 - jax.random.uniform(second, (self.arms,), minval=0.2, maxval=0.6)
        return TallyingState(
            fresh.at[0].set(0.1),
            exposed.at[0].set(0.9),
            jnp.full(self.memory, -1, jnp.int32),
            jnp.zeros((), jnp.int32),
        )

    def show(self, state: TallyingState, *, key: PRNGKeyArray):
        return no_context(self.arms)

    def mean_reward(self, state: TallyingState, context, features) -> Float[Array, " arm"]:
        # The oldest pull, in the place that this one takes, counts no more.
        place = state.round % self.memory
        last = state.last.at[place].set(-1)
        counts = jnp.sum(last[:, None] == jnp.arange(self.arms)[None, :], axis=0)
        share = (counts + 1) / self.memory
        return state.fresh + (state.exposed - state.fresh) * share

    def step(self, state: TallyingState, arm: Int[Array, ""], *, key: PRNGKeyArray):
        last = state.last.at[state.round % self.memory].set(arm)
        return TallyingState(state.fresh, state.exposed, last, state.round + 1)
