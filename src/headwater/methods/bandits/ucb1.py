"""UCB1: the arm whose mean reward could be the highest."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms
from headwater.parts.bandits.arm_means import ArmMeans, learn_means, no_means


class UCB1State(eqx.Module):
    """Means of the arms, and how far rewards can lie apart."""

    means: ArmMeans
    range: Float[Array, ""]


class UCB1(AbstractMethod[Arms, Pulls, UCB1State], AbstractArmPolicy[UCB1State]):
    r"""Pulls the arm of the highest $\hat\mu_a + c R \sqrt{2 \ln t / n_a}$.

    $R$ is the range of rewards and $t$ the number of pulls; every arm is pulled once first.

    **Arguments:**

    - `bonus_scale`: $c$.

    **Reference:** Auer, Cesa-Bianchi and Fischer (2002), Finite-time analysis.

    **Differences from the paper:** rewards may lie in another range than [0, 1]; $c$ is 1 there.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "auer2002finite", summary="the arm whose mean reward could be the highest"
    )

    bonus_scale: float = non_negative(1.0)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> UCB1State:
        problem.require_no_context("UCB1")
        low, high = problem.require_bounded("UCB1")
        return UCB1State(no_means(problem.arms), jnp.asarray(high - low, jnp.float32))

    def update(self, state: UCB1State, data: Pulls, *, key: PRNGKeyArray):
        means = learn_means(state.means, data)
        return UCB1State(means, state.range), {"best_mean": jnp.max(means.mean)}

    def probabilities(
        self, state: UCB1State, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        means = state.means
        if not explore:
            return best_arms(means.mean)
        total = jnp.log(jnp.maximum(means.total, 1).astype(jnp.float32))
        width = jnp.sqrt(2.0 * total / jnp.maximum(means.count, 1))
        index = means.mean + self.bonus_scale * state.range * width
        return best_arms(jnp.where(means.count == 0, jnp.inf, index))
