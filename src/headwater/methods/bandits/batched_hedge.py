"""Exponential weights in batches, where changing the arm costs something."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.ops.bandits.distributions import best_arms, exponential_weights


class BatchedHedgeState(eqx.Module):
    """Losses in all; the arm of this batch, and how probably it is kept at the next border.

    The arm is -1 before the first round.
    """

    losses: Float[Array, " arm"]
    seen: Float[Array, " arm"]
    arm: Int[Array, ""]
    kept: Float[Array, ""]
    round: Int[Array, ""]
    looked_at: Int[Array, ""]
    high: Float[Array, ""]
    range: Float[Array, ""]


class BatchedHedge(
    AbstractMethod[Arms, Pulls, BatchedHedgeState], AbstractArmPolicy[BatchedHedgeState]
):
    r"""Keeps one arm for a whole batch, and learns from one round of it.

    $N$ batches share $T$ rounds. In each, one round drawn uniformly is looked at. With `full`
    feedback the losses of all arms are seen in it, $\eta = c \sqrt{\ln K / N}$, and the next batch
    keeps its arm $a$ with probability $w_{b+1}(a) / w_b(a)$, drawing another one from the weights
    $w \propto e^{-\eta L}$ otherwise (the shrinking dartboard): arms change about
    $\sqrt{N \ln K}$ times. With `bandit` feedback the loss of the pulled arm is divided by its
    weight, $\eta = c \sqrt{2 \ln K / (K N)}$, and each batch draws its arm anew. With as many
    batches as observations that can be paid for, or $K^{1/3} T^{2/3}$ of them for bandit feedback,
    the regret with the changes of arms is of the best order.

    **Arguments:**

    - `num_rounds`: $T$.
    - `num_batches`: $N$, at most $T$.
    - `rate_scale`: $c$.
    - `feedback`: the losses of all arms (a source with `shows_all`), or of the one pulled.

    **Reference:** Cheng, Zhou and Ji (2023), arXiv:2306.09588; Geulen, Voecking and Winkler (2010)
    for the shrinking dartboard.

    **Differences from the paper:** $N$ is given, and not set from a budget of observations.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "cheng2023understanding",
        summary="exponential weights that seldom change the arm",
        parents=("EXP3",),
    )

    num_rounds: int = integer(10_000, static=False)
    num_batches: int = integer(100, static=False)
    rate_scale: float = positive(1.0)
    feedback: Literal["full", "bandit"] = choice("full")

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> BatchedHedgeState:
        problem.require_no_context("BatchedHedge")
        low, high = problem.require_bounded("BatchedHedge")
        none = jnp.zeros((), jnp.int32)
        return BatchedHedgeState(
            jnp.zeros(problem.arms),
            jnp.zeros(problem.arms),
            none - 1,
            jnp.zeros(()),
            none,
            jax.random.randint(key, (), 0, self._length, jnp.int32),
            jnp.asarray(high, jnp.float32),
            jnp.asarray(high - low, jnp.float32),
        )

    def update(self, state: BatchedHedgeState, data: Pulls, *, key: PRNGKeyArray):
        if self.feedback == "full" and data.rewards is None:
            raise SpecificationError(
                "BatchedHedge with full feedback learns from what every arm would have earned: "
                'give a source that shows it (shows_all), or feedback="bandit"'
            )
        rows = Pulls(
            data.context, data.features, data.arm, data.reward, data.propensity, data.rewards
        )

        def one(state, given):
            return self._after(state, *given)

        keys = jax.random.split(key, data.arm.shape[0])
        state, switched = jax.lax.scan(one, state, (rows, keys))
        return state, {"switches": jnp.sum(switched).astype(jnp.float32)}

    def probabilities(
        self, state: BatchedHedgeState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        if not explore:
            return best_arms(-state.losses)
        own = jax.nn.one_hot(state.arm, state.losses.shape[0])
        weights = exponential_weights(state.losses, self._rate(state))
        drawn = state.kept * own + (1.0 - state.kept) * weights
        return jnp.where(state.round == 0, drawn, own)

    def _after(
        self, state: BatchedHedgeState, row: Pulls, key: PRNGKeyArray
    ) -> tuple[BatchedHedgeState, Bool[Array, ""]]:
        """The state after one round, and whether the arm changed in it."""
        first = state.round == 0
        switched = first & (row.arm != state.arm) & (state.arm >= 0)
        arm = jnp.where(first, row.arm, state.arm)
        rate = self._rate(state)
        if self.feedback == "full":
            assert row.rewards is not None
            losses = (state.high - row.rewards) / state.range
        else:
            weights = exponential_weights(state.losses, rate)
            own = (state.high - row.reward) / state.range
            losses = own * jax.nn.one_hot(arm, weights.shape[0]) / weights[arm]
        seen = jnp.where(state.round == state.looked_at, losses, state.seen)
        over = state.round + 1 >= self._length
        kept = jnp.exp(-rate * seen[arm]) if self.feedback == "full" else jnp.zeros(())
        summed = state.losses + jnp.where(over, seen, 0.0)
        return BatchedHedgeState(
            summed,
            jnp.where(over, 0.0, seen),
            arm,
            jnp.where(over, kept, state.kept),
            jnp.where(over, 0, state.round + 1),
            jnp.where(
                over, jax.random.randint(key, (), 0, self._length, jnp.int32), state.looked_at
            ),
            state.high,
            state.range,
        ), switched

    @property
    def _length(self) -> Int[Array, ""]:
        return jnp.maximum(self.num_rounds // jnp.maximum(self.num_batches, 1), 1)

    def _rate(self, state: BatchedHedgeState) -> Float[Array, ""]:
        arms = state.losses.shape[0]
        each = 1.0 if self.feedback == "full" else 2.0 / arms
        return self.rate_scale * jnp.sqrt(each * jnp.log(float(arms)) / self.num_batches)
