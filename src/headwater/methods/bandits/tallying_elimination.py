"""Successive elimination for arms that have to be repeated before they show what they are worth."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, probability
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms
from headwater.parts.bandits.arm_means import ArmMeans, learn_means, no_means


class TallyingState(eqx.Module):
    """The arms that are left, the one that is being repeated, and how often it was by now."""

    active: Bool[Array, " arm"]
    means: ArmMeans
    arm: Int[Array, ""]
    repeats: Int[Array, ""]
    epoch: Int[Array, ""]
    range: Float[Array, ""]


class TallyingElimination(
    AbstractMethod[Arms, Pulls, TallyingState], AbstractArmPolicy[TallyingState]
):
    r"""Repeats each arm that is left for a block, and drops arms that are surely not the best.

    In epoch $e$ an arm is pulled $M$ times without being judged, so that what was pulled before is
    forgotten, and $\max(M, 1) 2^e$ times more, whose mean counts. After each epoch arms whose upper
    bound lies below another's lower bound are dropped, with the radius
    $R \sqrt{\ln(4 K T / \delta) / (2 N_a)}$ after $N_a$ pulls that count and the range $R$ of
    rewards. The last arm is pulled for ever.

    **Arguments:**

    - `memory`: $M$, at least the number of pulls that a reward depends on.
    - `num_rounds`: $T$, the rounds that the bounds are to hold for.
    - `failure_probability`: $\delta$.
    - `interleaved`: pull the arms in turn, judge every pull, and drop arms after each turn, as
      successive elimination does otherwise: what the paper compares with.

    **Reference:** Malik, Igoe, Li and Singh (2023), arXiv:2305.02955.

    **Differences from the paper:** the schedule of the epochs is a reconstruction from its bound.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "malik2023weighted",
        summary="elimination of arms that are repeated, for rewards that depend on past pulls",
    )

    memory: int = integer(10, low=0, static=False)
    num_rounds: int = integer(10_000, static=False)
    failure_probability: float = probability(0.1)
    interleaved: bool = flag(False)

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> TallyingState:
        problem.require_no_context("TallyingElimination")
        low, high = problem.require_bounded("TallyingElimination")
        none = jnp.zeros((), jnp.int32)
        return TallyingState(
            jnp.ones(problem.arms, bool),
            no_means(problem.arms),
            none,
            none,
            none,
            jnp.asarray(high - low, jnp.float32),
        )

    def update(self, state: TallyingState, data: Pulls, *, key: PRNGKeyArray):
        rows = Pulls(data.context, data.features, data.arm, data.reward, data.propensity)
        state, _ = jax.lax.scan(lambda s, row: (self._after(s, row), None), state, rows)
        return state, {"arms_left": jnp.sum(state.active).astype(jnp.float32)}

    def probabilities(
        self, state: TallyingState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        if explore:
            return jax.nn.one_hot(state.arm, state.active.shape[0])
        return best_arms(jnp.where(state.active, state.means.mean, -jnp.inf))

    def _after(self, state: TallyingState, row: Pulls) -> TallyingState:
        """The state after one pull."""
        memory = 0 if self.interleaved else self.memory
        judged = 1 if self.interleaved else jnp.maximum(memory, 1) * 2**state.epoch
        counts = state.repeats >= memory
        learned = learn_means(state.means, jax.tree.map(lambda x: x[None], row))
        means = jax.tree.map(lambda new, old: jnp.where(counts, new, old), learned, state.means)
        repeats = state.repeats + 1
        over = repeats >= memory + judged
        arms = state.active.shape[0]
        later = state.active & (jnp.arange(arms) > state.arm)
        ended = over & ~jnp.any(later)
        active = jnp.where(ended, self._kept(state, means), state.active)
        following = jnp.where(ended, jnp.argmax(active), jnp.argmax(later)).astype(jnp.int32)
        return TallyingState(
            active,
            means,
            jnp.where(over, following, state.arm),
            jnp.where(over, 0, repeats),
            # Blocks stop growing long before whole numbers overflow.
            jnp.minimum(state.epoch + ended, 20),
            state.range,
        )

    def _kept(self, state: TallyingState, means: ArmMeans) -> Bool[Array, " arm"]:
        arms = state.active.shape[0]
        confidence = jnp.log(4.0 * arms * self.num_rounds / self.failure_probability)
        radius = state.range * jnp.sqrt(confidence / (2.0 * jnp.maximum(means.count, 1)))
        lowest = jnp.max(jnp.where(state.active, means.mean - radius, -jnp.inf))
        return state.active & (means.mean + radius >= lowest)
