"""NeuFastCB: relative inverse gap weighting of a network that is trained with the log loss."""

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


class NeuFastCBState(eqx.Module):
    """The network of the logits of losses, and the range of rewards."""

    logits: RewardNetwork
    high: Float[Array, ""]
    range: Float[Array, ""]


class NeuFastCB(AbstractMethod[Arms, Pulls, NeuFastCBState], AbstractArmPolicy[NeuFastCBState]):
    r"""Pulls arms in relative inverse proportion to how much more they lose than the best.

    $p_a = \hat y_b / (K \hat y_b + \gamma \sqrt t (\hat y_a - \hat y_b))$, and the best arm $b$
    has the rest.

    As `NeuSquareCB`, but losses in [0, 1] are predicted through a sigmoid and the network descends
    the cross-entropy, so that arms are told apart finely where the best loses little.

    **Arguments:**

    - `learning_rate`: $\eta$, of steps $\eta / \sqrt{1 + t / 500}$.
    - `gap_weight`: $\gamma$.
    - `hidden_sizes`: of the network.

    **Reference:** Deb, Ban, Zuo, He and Banerjee (2024), arXiv:2312.07145.

    **Differences from the paper:** those of `NeuSquareCB`.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "deb2024contextual",
        summary="relative inverse gap weighting of a network's log loss",
        parents=("NeuSquareCB",),
    )

    learning_rate: float = non_negative(0.3)
    gap_weight: float = non_negative(10.0)
    hidden_sizes: tuple[int, ...] = sizes((64, 64))

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> NeuFastCBState:
        low, high = problem.require_bounded("NeuFastCB")
        return NeuFastCBState(
            begin_network(problem, self.hidden_sizes, key=key),
            jnp.asarray(high, jnp.float32),
            jnp.asarray(high - low, jnp.float32),
        )

    def update(self, state: NeuFastCBState, data: Pulls, *, key: PRNGKeyArray):
        def loss(output, reward):
            # Cross-entropy of the sigmoid, from its logit.
            return jax.nn.softplus(output) - (state.high - reward) / state.range * output

        rate = falling_rate(self.learning_rate, state.logits.pulls)
        logits, value = descend_once(state.logits, data, loss, rate)
        return NeuFastCBState(logits, state.high, state.range), {"loss": value}

    def probabilities(
        self, state: NeuFastCBState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        logits = outputs(state.logits, context, features)
        if not explore:
            return best_arms(-logits)
        predicted = jax.nn.sigmoid(logits)
        # Where the best loses next to nothing, all others are pulled next to never.
        least = jnp.maximum(jnp.min(predicted), 1e-6)
        return inverse_gap_weights(
            -predicted, self.gap_weight * jnp.sqrt(state.logits.pulls) / least
        )
