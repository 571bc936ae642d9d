"""NeuSquareCB: inverse gap weighting of a network that is trained with the square loss."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, sizes
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, inverse_gap_weights
from headwater.parts.bandits.reward_network import (
    RewardNetwork,
    begin_network,
    descend_once,
    falling_rate,
    outputs,
)


class NeuSquareCBState(eqx.Module):
    """The network of losses, and the range of rewards."""

    losses: RewardNetwork
    high: Float[Array, ""]
    range: Float[Array, ""]


class NeuSquareCB(
    AbstractMethod[Arms, Pulls, NeuSquareCBState], AbstractArmPolicy[NeuSquareCBState]
):
    r"""Pulls arm $a$ with probability $1 / (K + \gamma \sqrt t (\hat y_a - \hat y_b))$.

    $\hat y$ are the losses that a network predicts, the least of them at arm $b$, which has the
    rest. A loss is what a reward falls short of the highest one, over the range of rewards. The
    network reads the context in a block of each arm's own and descends the square loss of every
    pull once, with the rate $\eta / \sqrt{1 + t / 500}$.

    **Arguments:**

    - `learning_rate`: $\eta$.
    - `gap_weight`: $\gamma$.
    - `hidden_sizes`: of the network.

    **Reference:** Deb, Ban, Zuo, He and Banerjee (2024), arXiv:2312.07145.

    **Differences from the paper:** predictions are not perturbed; $\gamma$ grows with the
    rounds, whose number need not be known; weights are not projected.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "deb2024contextual",
        summary="inverse gap weighting of a network's square loss",
        parents=("SquareCB",),
    )

    learning_rate: float = non_negative(0.3)
    gap_weight: float = non_negative(10.0)
    hidden_sizes: tuple[int, ...] = sizes((64, 64))

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> NeuSquareCBState:
        low, high = problem.require_bounded("NeuSquareCB")
        return NeuSquareCBState(
            begin_network(problem, self.hidden_sizes, key=key),
            jnp.asarray(high, jnp.float32),
            jnp.asarray(high - low, jnp.float32),
        )

    def update(self, state: NeuSquareCBState, data: Pulls, *, key: PRNGKeyArray):
        def loss(output, reward):
            return (output - (state.high - reward) / state.range) ** 2

        rate = falling_rate(self.learning_rate, state.losses.pulls)
        losses, value = descend_once(state.losses, data, loss, rate)
        return NeuSquareCBState(losses, state.high, state.range), {"loss": value}

    def probabilities(
        self, state: NeuSquareCBState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        predicted = jax.lax.stop_gradient(outputs(state.losses, context, features))
        if not explore:
            return best_arms(-predicted)
        return inverse_gap_weights(-predicted, self.gap_weight * jnp.sqrt(state.losses.pulls))
