"""Thompson sampling: each arm as often as it is believed to be the best."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, frequencies_of_best
from headwater.parts.bandits.arm_means import ArmMeans, learn_means, no_means


class ThompsonState(eqx.Module):
    """Means of the arms, with the range of rewards."""

    means: ArmMeans
    low: Float[Array, ""]
    range: Float[Array, ""]


class ThompsonSampling(
    AbstractMethod[Arms, Pulls, ThompsonState], AbstractArmPolicy[ThompsonState]
):
    r"""Pulls each arm with the probability that it is the best, under the beliefs so far.

    Rewards are scaled into [0, 1]. `beta`: $\mu_a \sim \mathrm{Beta}(c + s_a, c + n_a - s_a)$ with
    the sum $s_a$ of the rewards; `normal`: $\mu_a \sim N(s_a / (n_a + c), 1 / (n_a + c))$.

    **Arguments:**

    - `beliefs`: about the mean of an arm.
    - `prior_pulls`: $c$, how many pulls the belief before the first one is worth.
    - `num_samples`: draws of the beliefs, whose frequencies of the best arm are the distribution.

    **Reference:** Thompson (1933); Agrawal and Goyal (2013) for normal beliefs.

    **Differences from the paper:** the arm is drawn from the frequencies over several samples,
    which leaves its distribution as it is and tells with which probability it was pulled.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "thompson1933likelihood",
        summary="each arm as often as it is believed to be the best",
    )

    beliefs: Literal["beta", "normal"] = choice("beta")
    prior_pulls: float = positive(1.0)
    num_samples: int = integer(32)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> ThompsonState:
        problem.require_no_context("ThompsonSampling")
        low, high = problem.require_bounded("ThompsonSampling")
        return ThompsonState(
            no_means(problem.arms),
            jnp.asarray(low, jnp.float32),
            jnp.asarray(high - low, jnp.float32),
        )

    def update(self, state: ThompsonState, data: Pulls, *, key: PRNGKeyArray):
        means = learn_means(state.means, data)
        return ThompsonState(means, state.low, state.range), {"best_mean": jnp.max(means.mean)}

    def probabilities(
        self, state: ThompsonState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        count = state.means.count.astype(jnp.float32)
        mean = jnp.clip((state.means.mean - state.low) / state.range, 0.0, 1.0)
        sums = jnp.where(count > 0.0, mean * count, 0.0)
        shape = (self.num_samples, count.shape[0])
        if self.beliefs == "beta":
            won, lost = self.prior_pulls + sums, self.prior_pulls + count - sums
            if not explore:
                return best_arms(won / (won + lost))
            drawn = jax.random.beta(
                key, jnp.broadcast_to(won, shape), jnp.broadcast_to(lost, shape)
            )
        else:
            centre = sums / (count + self.prior_pulls)
            if not explore:
                return best_arms(centre)
            spread = jnp.broadcast_to(1.0 / jnp.sqrt(count + self.prior_pulls), shape)
            drawn = jnp.broadcast_to(centre, shape) + spread * jax.random.normal(key, shape)
        return frequencies_of_best(drawn)
