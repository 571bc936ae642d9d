"""SquareCB: arms in inverse proportion to how much worse they look than the best."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, inverse_gap_weights
from headwater.parts.bandits.linear_arms import LinearArms, estimates, learn_weights, no_weights


class SquareCB(AbstractMethod[Arms, Pulls, LinearArms], AbstractArmPolicy[LinearArms]):
    r"""Pulls each arm in inverse proportion to how much worse it looks than the best.

    $p_a = 1 / (K + \gamma_t (\hat y_b - \hat y_a))$, and the best arm $b$ has the rest. $\hat y$
    are predictions of ridge regression, and $\gamma_t = \gamma \sqrt t$ after $t$ pulls. Rewards
    should lie within a range of about one.

    **Arguments:**

    - `gap_weight`: $\gamma$.
    - `ridge`: $\lambda$ of the regression.

    **Reference:** Foster and Rakhlin (2020), arXiv:2002.04926.

    **Differences from the paper:** $\gamma$ grows with the rounds, whose number need not be known.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "foster2020beyond", summary="inverse gap weighting of ridge regression"
    )

    gap_weight: float = non_negative(10.0)
    ridge: float = positive(1.0)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> LinearArms:
        return no_weights(problem, self.ridge)

    def update(self, state: LinearArms, data: Pulls, *, key: PRNGKeyArray):
        state, error = learn_weights(state, data)
        return state, {"squared_error": error}

    def probabilities(
        self, state: LinearArms, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        mean = estimates(state, context, features).mean
        if not explore:
            return best_arms(mean)
        return inverse_gap_weights(mean, self.gap_weight * jnp.sqrt(state.pulls))
