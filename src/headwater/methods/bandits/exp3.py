"""EXP3: exponential weights of losses estimated from single arms, for rewards that may change."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, exponential_weights


class EXP3State(eqx.Module):
    """Estimated losses in all, less those of the best arm; the range of rewards; pulls so far."""

    losses: Float[Array, " arm"]
    high: Float[Array, ""]
    range: Float[Array, ""]
    pulls: Int[Array, ""]


class EXP3(AbstractMethod[Arms, Pulls, EXP3State], AbstractArmPolicy[EXP3State]):
    r"""Pulls arm $a$ with probability $\propto e^{-\eta_t \hat L_a}$.

    $\hat L_a$ sums $\ell / (p_a + \gamma)$ over the pulls of $a$, where $\ell \in [0, 1]$ is what
    the reward fell short of the highest one and $p_a$ the propensity; with $\gamma = 0$ the
    estimates are unbiased. $\eta_t = c \sqrt{\ln K / (t K)}$.

    **Arguments:**

    - `rate_scale`: $c$.
    - `implicit_exploration`: $\gamma$, which makes estimates of rarely pulled arms cautious.

    **Reference:** Auer, Cesa-Bianchi, Freund and Schapire (2002), The nonstochastic multiarmed
    bandit problem.

    **Differences from the paper:** losses and a rate that falls with the rounds, in place of gains
    and a share of uniform pulls for a known number of rounds (Bubeck and Cesa-Bianchi, 2012).
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "auer2002nonstochastic", summary="exponential weights, for rewards that may change"
    )

    rate_scale: float = positive(1.0)
    implicit_exploration: float = non_negative(0.0)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> EXP3State:
        problem.require_no_context("EXP3")
        low, high = problem.require_bounded("EXP3")
        return EXP3State(
            jnp.zeros(problem.arms),
            jnp.asarray(high, jnp.float32),
            jnp.asarray(high - low, jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    def update(self, state: EXP3State, data: Pulls, *, key: PRNGKeyArray):
        loss = (state.high - data.reward) / state.range
        estimate = loss / (data.propensity + self.implicit_exploration)
        losses = state.losses.at[data.arm].add(estimate)
        state = EXP3State(
            losses - jnp.min(losses), state.high, state.range, state.pulls + data.arm.size
        )
        return state, {"loss": jnp.mean(loss)}

    def probabilities(
        self, state: EXP3State, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        if not explore:
            return best_arms(-state.losses)
        arms = state.losses.shape[0]
        rounds = jnp.maximum(state.pulls, 1)
        rate = self.rate_scale * jnp.sqrt(jnp.log(float(arms)) / (rounds * arms))
        return exponential_weights(state.losses, rate)
