"""ε-greedy: usually the arm that looks best, sometimes any."""

from typing import ClassVar

from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import positive, share
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, with_uniform
from headwater.parts.bandits.linear_arms import LinearArms, estimates, learn_weights, no_weights


class EpsilonGreedy(AbstractMethod[Arms, Pulls, LinearArms], AbstractArmPolicy[LinearArms]):
    r"""Ridge regression of rewards, and with probability $\varepsilon$ a uniformly random arm.

    Without contexts and features the regression is the mean reward of each arm, shrunk to zero by
    $\lambda$.

    **Arguments:**

    - `exploration_rate`: $\varepsilon$.
    - `ridge`: $\lambda$.

    **Reference:** Sutton and Barto (2018), Section 2.2; Langford and Zhang (2007) with contexts.

    **Differences from the paper:** ridge regression, also where the book has sample means.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "sutton2018reinforcement",
        summary="the arm that looks best, but sometimes any arm",
    )

    exploration_rate: float = share(0.1)
    ridge: float = positive(1.0)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> LinearArms:
        return no_weights(problem, self.ridge)

    def update(self, state: LinearArms, data: Pulls, *, key: PRNGKeyArray):
        state, error = learn_weights(state, data)
        return state, {"squared_error": error}

    def probabilities(
        self, state: LinearArms, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        best = best_arms(estimates(state, context, features).mean)
        return with_uniform(best, self.exploration_rate) if explore else best
