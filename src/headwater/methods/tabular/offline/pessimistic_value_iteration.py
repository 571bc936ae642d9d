"""Value iteration with lower confidence bounds, for logged episodes."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import (
    AbstractCertificate,
    AbstractMethod,
    AbstractTablePolicy,
    Info,
)
from headwater.core.records import Episodes
from headwater.ops.tabular.bonus import reward_width
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    certified_gap,
    count,
    estimated_unit_reward,
    expected_next,
    no_counts,
)
from headwater.ops.tabular.planning import greedy_table
from headwater.parts.planned_values import PlannedValues, episode_metrics


class PessimisticValueIteration(
    AbstractMethod[FiniteProblem, Episodes, PlannedValues],
    AbstractTablePolicy[PlannedValues],
    AbstractCertificate[PlannedValues],
):
    r"""Plans in the empirical model with a penalty for what the log shows seldom (VI-LCB).

    $Q_h = \max\{0, \hat r + \hat P V_{h+1} - b_h\}$, $V_h = \max_a Q_h$, with $L = \ln(KH/\delta)$,
    $K$ the logged episodes, and either penalty, never above $H$:

    - Bernstein: $b = \sqrt{16L\,\mathrm{Var}_{\hat P}(V_{h+1})/N} + 16HL/N$.
    - Hoeffding: $b = 4H\sqrt{L/N}$.

    What was never logged is worth as little as can be, and of equally good actions the one that was
    logged most often is taken. All episodes come in one update; further updates add to them, so a
    log must not be shown twice. With `penalty_scale = 0` this is value iteration in the
    empirical model, in which what was never logged is still worth as little as can be.

    **Arguments:**

    - `penalty`: which of the two.
    - `penalty_scale`: multiplies the penalty, before its cap. 1 is the theorem's; about 0.01
      (Bernstein) or 0.03 (Hoeffding) is practical.
    - `failure_probability`: δ.

    **Reference:** Li, Shi, Chen, Chi, Wei (2022), arXiv:2204.05275; the Hoeffding penalty after
    Rashidinejad, Zhu, Ma, Jiao, Russell (2021), arXiv:2103.12021.

    **Differences from the paper:** all samples are used, where the theorem thins them out so that
    steps become independent; rewards that are not known are estimated, at the price of
    $\sqrt{2L\,\mathrm{Var}(r)/N} + 7L/(3N)$ in the Bernstein penalty (the Hoeffding penalty is
    large enough to hold them).
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "li2022settling",
        summary="pessimistic planning in the empirical model of logged episodes",
    )

    penalty: Literal["bernstein", "hoeffding"] = choice("bernstein")
    penalty_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> PlannedValues:
        problem.require_one_task("PessimisticValueIteration")
        nothing = jnp.zeros(problem.sizes)
        return PlannedValues(no_counts(problem), nothing, problem)

    def update(self, state: PlannedValues, data: Episodes, *, key: PRNGKeyArray):
        counts = count(state.counts, data, state.problem)
        action_value = self._plan(counts, state.problem)
        metrics = episode_metrics(data, action_value, "pessimistic_value", state.problem)
        return PlannedValues(counts, action_value, state.problem), metrics

    def policy(self, state: PlannedValues, *, explore: bool):
        value = state.action_value
        best = value == jnp.max(value, axis=-1, keepdims=True)
        return greedy_table(jnp.where(best, state.counts.visits, -1.0))[0]

    def suboptimality_bound(self, state: PlannedValues) -> Float[Array, ""]:
        policy = self.policy(state, explore=False)
        return certified_gap(state.counts, policy, state.problem, self.failure_probability)

    def _plan(self, counts: Counts, problem: FiniteProblem):
        horizon = problem.horizon
        episodes = jnp.sum(counts.visits[0])
        log = jnp.log(at_least_once(episodes) * horizon / self.failure_probability)
        visits = at_least_once(counts.visits)
        if self.penalty == "hoeffding":
            fixed, slow = 4.0 * horizon * jnp.sqrt(log / visits), jnp.zeros_like(visits)
        else:
            fixed, slow = 16.0 * horizon * log / visits, jnp.sqrt(16.0 * log / visits)
            if problem.reward is None:
                fixed += reward_width(counts, log)

        def one(value, step):
            following, visits, reward, fixed, slow = step
            mean, variance = expected_next(following, visits, value)
            penalty = self.penalty_scale * (fixed + slow * jnp.sqrt(variance))
            penalty = jnp.minimum(penalty, horizon)
            action_value = jnp.maximum(reward + mean - penalty, 0.0)
            action_value = jnp.where(visits > 0.0, action_value, 0.0)
            return jnp.max(action_value, axis=-1), action_value

        reward = estimated_unit_reward(counts, problem)
        steps = (counts.following, counts.visits, reward, fixed, slow)
        return jax.lax.scan(one, jnp.zeros(problem.states), steps, reverse=True)[1]
