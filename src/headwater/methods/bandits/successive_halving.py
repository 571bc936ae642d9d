"""Successive halving: find the best arm with a given number of pulls."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms
from headwater.parts.bandits.arm_means import ArmMeans, learn_means, no_means


class HalvingState(eqx.Module):
    """The arms that are left, and their means in this phase alone."""

    active: Bool[Array, " arm"]
    means: ArmMeans


class SuccessiveHalving(AbstractMethod[Arms, Pulls, HalvingState], AbstractArmPolicy[HalvingState]):
    r"""Pulls the arms that are left equally often, drops the worse half, until one is left.

    Each of the $\lceil \log_2 K \rceil$ phases has an equal share of the budget $T$: an arm of
    $S$ is pulled $\lfloor T / (|S| \lceil \log_2 K \rceil) \rfloor$ times in it, at least once,
    and judged by these pulls alone.

    **Arguments:**

    - `budget`: $T$, pulls until one arm is left.

    **Reference:** Karnin, Koren and Somekh (2013), Almost optimal exploration.

    **Differences from the paper:** an arm is pulled once in a phase where the budget gives it none.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "karnin2013almost", summary="drop the worse half of the arms, again and again"
    )

    budget: int = integer(1_000, static=False)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> HalvingState:
        problem.require_no_context("SuccessiveHalving")
        return HalvingState(jnp.ones(problem.arms, bool), no_means(problem.arms))

    def update(self, state: HalvingState, data: Pulls, *, key: PRNGKeyArray):
        means, active = learn_means(state.means, data), state.active
        arms = active.shape[0]
        left = jnp.sum(active)
        phases = math.ceil(math.log2(arms))
        required = jnp.maximum(self.budget // (left * phases), 1)
        done = jnp.all((means.count >= required) | ~active) & (left > 1)
        # Places of the arms by their means, the best first; of equals the one of lower number.
        order = jnp.argsort(jnp.where(active, -means.mean, jnp.inf), stable=True)
        place = jnp.zeros(arms, order.dtype).at[order].set(jnp.arange(arms, dtype=order.dtype))
        kept = active & (place < (left + 1) // 2)
        fresh = no_means(arms)
        state = HalvingState(
            jnp.where(done, kept, active),
            ArmMeans(
                jnp.where(done, fresh.count, means.count),
                jnp.where(done, fresh.mean, means.mean),
            ),
        )
        return state, {"arms_left": jnp.sum(state.active).astype(jnp.float32)}

    def probabilities(
        self, state: HalvingState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        if not explore:
            return best_arms(jnp.where(state.active, state.means.mean, -jnp.inf))
        return best_arms(jnp.where(state.active, -state.means.count, -jnp.inf))
