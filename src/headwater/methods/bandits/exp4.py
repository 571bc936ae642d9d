"""EXP4: exponential weights over experts who advise which arm to pull."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, exponential_weights


class EXP4State(eqx.Module):
    """Estimated losses of the experts, less those of the best; the range of rewards; pulls."""

    losses: Float[Array, " expert"]
    high: Float[Array, ""]
    range: Float[Array, ""]
    pulls: Int[Array, ""]


class EXP4(AbstractMethod[Arms, Pulls, EXP4State], AbstractArmPolicy[EXP4State]):
    r"""Mixes the advice of experts with weights $\propto e^{-\eta_t \hat L_e}$.

    The features of the arms are the advice: feature $e$ of arm $a$ is the weight $\xi_{a,e} \ge 0$
    that expert $e$ gives to it in this round, scaled to a distribution (what is negative counts as
    nothing, and an expert without advice takes all arms for alike). $\hat L_e$ sums
    $\xi_{a,e} \ell / p_a$ over pulls, with $\ell \in [0, 1]$ what the reward fell short of the
    highest one and $p_a$ the propensity. $\eta_t = c \sqrt{\ln N / (t K)}$ for $N$ experts.

    **Arguments:**

    - `rate_scale`: $c$.

    **Reference:** Auer, Cesa-Bianchi, Freund and Schapire (2002), The nonstochastic multiarmed
    bandit problem.

    **Differences from the paper:** losses and a rate that falls with the rounds, in place of gains
    and a share of uniform pulls for a known number of rounds (Bubeck and Cesa-Bianchi, 2012).
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "auer2002nonstochastic",
        summary="exponential weights over experts' advice",
        parents=("EXP3",),
    )

    rate_scale: float = positive(1.0)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> EXP4State:
        experts = problem.require_features("EXP4")
        low, high = problem.require_bounded("EXP4")
        return EXP4State(
            jnp.zeros(experts),
            jnp.asarray(high, jnp.float32),
            jnp.asarray(high - low, jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    def update(self, state: EXP4State, data: Pulls, *, key: PRNGKeyArray):
        loss = (state.high - data.reward) / state.range
        advice = _advice(data.features)
        followed = jnp.take_along_axis(advice, data.arm[:, None, None], axis=1)[:, 0]
        losses = state.losses + (loss / data.propensity) @ followed
        state = EXP4State(
            losses - jnp.min(losses), state.high, state.range, state.pulls + data.arm.size
        )
        return state, {"loss": jnp.mean(loss)}

    def probabilities(
        self, state: EXP4State, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        arms, experts = features.shape
        rounds = jnp.maximum(state.pulls, 1)
        rate = self.rate_scale * jnp.sqrt(jnp.log(float(experts)) / (rounds * arms))
        mixed = _advice(features) @ exponential_weights(state.losses, rate)
        # The advice sums to one for each expert, up to rounding.
        return mixed / jnp.sum(mixed) if explore else best_arms(mixed)


def _advice(features: Float[Array, "*some arm expert"]) -> Float[Array, "*some arm expert"]:
    weights = jnp.maximum(features, 0.0)
    total = jnp.sum(weights, axis=-2, keepdims=True)
    alike = jnp.full_like(weights, 1.0 / weights.shape[-2])
    return jnp.where(total > 0.0, weights / jnp.where(total > 0.0, total, 1.0), alike)
