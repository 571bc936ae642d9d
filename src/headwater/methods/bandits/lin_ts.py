"""LinTS: Thompson sampling of the weights of linear rewards."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, frequencies_of_best
from headwater.ops.linear_algebra import cholesky
from headwater.parts.bandits.linear_arms import (
    LinearArms,
    estimates,
    inputs_of,
    learn_weights,
    no_weights,
)


class LinTS(AbstractMethod[Arms, Pulls, LinearArms], AbstractArmPolicy[LinearArms]):
    r"""Pulls each arm with the probability that it is the best, under the beliefs so far.

    $\theta \sim N(\hat\theta, v^2 A^{-1})$, where $\hat\theta$ and $A$ are those of `LinUCB`.

    **Arguments:**

    - `noise_std`: $v$.
    - `ridge`: $\lambda$ of $A$.
    - `num_samples`: draws of $\theta$, whose frequencies of the best arm are the distribution.

    **Reference:** Agrawal and Goyal (2013), arXiv:1209.3352.

    **Differences from the paper:** the arm is drawn from the frequencies over several samples,
    which leaves its distribution as it is and tells with which probability it was pulled.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "agrawal2013thompson",
        summary="Thompson sampling of linear rewards",
        parents=("ThompsonSampling", "LinUCB"),
    )

    noise_std: float = non_negative(0.5)
    ridge: float = positive(1.0)
    num_samples: int = integer(32)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> LinearArms:
        return no_weights(problem, self.ridge)

    def update(self, state: LinearArms, data: Pulls, *, key: PRNGKeyArray):
        state, error = learn_weights(state, data)
        return state, {"squared_error": error}

    def probabilities(
        self, state: LinearArms, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        found = estimates(state, context, features)
        if not explore:
            return best_arms(found.mean)
        if features.shape[1]:
            inverse = state.inverse[0]
            size = inverse.shape[0]
            # Rounding may leave an inverse that is not quite positive.
            root = cholesky(inverse + 1e-6 * jnp.trace(inverse) / size * jnp.eye(size))
            noise = jax.random.normal(key, (self.num_samples, size)) @ root.T
            deviations = noise @ inputs_of(context, features).T
        else:
            # Arms have weights of their own, so what they are worth is independent.
            shape = (self.num_samples, features.shape[0])
            spread = jnp.broadcast_to(jnp.sqrt(found.variance), shape)
            deviations = spread * jax.random.normal(key, shape)
        means = jnp.broadcast_to(found.mean, deviations.shape)
        return frequencies_of_best(means + self.noise_std * deviations)
