"""LinUCB: the arm whose reward, linear in what describes it, could be the highest."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms
from headwater.parts.bandits.linear_arms import LinearArms, estimates, learn_weights, no_weights


class LinUCB(AbstractMethod[Arms, Pulls, LinearArms], AbstractArmPolicy[LinearArms]):
    r"""Pulls the arm of the highest $x_a^\top \hat\theta + c \|x_a\|_{A^{-1}}$.

    $A = \lambda I + \sum x x^\top$ and $\hat\theta = A^{-1} \sum x r$. Where arms have features,
    $x_a$ are these and their products with the context, and all arms share $\theta$; otherwise
    $x$ is the context and each arm has its own $\theta$ (Algorithm 1).

    **Arguments:**

    - `bonus_scale`: $c$.
    - `ridge`: $\lambda$.

    **Reference:** Li, Chu, Langford and Schapire (2010), arXiv:1003.0146.

    **Differences from the paper:** where arms have features, they share all weights; the hybrid
    model, in which each arm also has weights of its own, is not built.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "li2010contextual",
        summary="the arm whose linear reward could be the highest",
        parents=("UCB1",),
    )

    bonus_scale: float = non_negative(1.0)
    ridge: float = positive(1.0)

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
        return best_arms(found.mean + self.bonus_scale * jnp.sqrt(found.variance))
