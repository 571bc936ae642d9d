"""Upper confidence bound value iteration."""

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
from headwater.ops.tabular.bonus import ValueCap, highest_values, reward_width
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    count,
    estimated_unit_reward,
    expected_next,
    no_counts,
)
from headwater.ops.tabular.planning import greedy_table
from headwater.parts.planned_values import PlannedValues, episode_metrics, greedy_gap


class UCBVI(
    AbstractMethod[FiniteProblem, Episodes, PlannedValues],
    AbstractTablePolicy[PlannedValues],
    AbstractCertificate[PlannedValues],
):
    r"""Plans in the empirical model with a bonus for what was seen seldom; replans every episode.

    $Q_h = \min\{Q_h^{old}, H, \hat r + \hat P V_{h+1} + b_h\}$, $V_h = \max_a Q_h$, with
    $L = \ln(5SAT/\delta)$, $T = KH$, and either bonus:

    - Hoeffding: $b = 7HL\sqrt{1/N}$.
    - Bernstein: $b = \sqrt{8L\,\mathrm{Var}_{\hat P}(V_{h+1})/N} + 14HL/(3N) + \sqrt{(8/N)
      \sum_y \hat P(y) \min\{100^2 H^3 S^2 A L^2 / N'_{h+1}(y), H^2\}}$, $N'$ the visits of a state.

    **Arguments:**

    - `bonus`: which of the two.
    - `bonus_scale`: multiplies the bonus. 1 is the theorem's, with which optimism is promised and
      regret stays linear for very long; about 0.01 (Bernstein) or 0.001 (Hoeffding) is practical.
    - `failure_probability`: δ.
    - `num_episodes`: K, over which the guarantee holds.
    - `value_cap`: what no value may exceed.

    **Reference:** Azar, Osband, Munos (2017), arXiv:1703.05449.

    **Differences from the paper:** rewards that are not known are estimated, at the price of
    $\sqrt{2L\,\mathrm{Var}(r)/N} + 7L/(3N)$ in the Bernstein bonus (the Hoeffding bonus is large
    enough to hold them); the process may differ from step to step, so counts are kept for each.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "azar2017minimax",
        summary="optimistic planning in the empirical model of a finite process",
    )

    bonus: Literal["bernstein", "hoeffding"] = choice("bernstein")
    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(10_000.0)
    value_cap: ValueCap = choice("horizon")

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> PlannedValues:
        problem.require_one_task("UCBVI")
        highest = highest_values(problem, self.value_cap)
        return PlannedValues(no_counts(problem), highest, problem)

    def update(self, state: PlannedValues, data: Episodes, *, key: PRNGKeyArray):
        counts = count(state.counts, data, state.problem)
        action_value = self._plan(counts, state.action_value, state.problem)
        metrics = episode_metrics(data, action_value, "optimistic_value", state.problem)
        return PlannedValues(counts, action_value, state.problem), metrics

    def policy(self, state: PlannedValues, *, explore: bool):
        return greedy_table(state.action_value)[0]

    def suboptimality_bound(self, state: PlannedValues) -> Float[Array, ""]:
        return greedy_gap(state.counts, state.action_value, state.problem, self.failure_probability)

    def _plan(self, counts: Counts, old: Float[Array, "horizon state action"], problem):
        horizon, states, actions = problem.sizes
        log = jnp.log(
            5.0 * states * actions * self.num_episodes * horizon / self.failure_probability
        )
        reward = estimated_unit_reward(counts, problem)
        # What depends on the step's own counts alone is worked out for all steps at once.
        visits = at_least_once(counts.visits)
        if self.bonus == "hoeffding":
            fixed = 7.0 * horizon * log / jnp.sqrt(visits)
        else:
            fixed = 14.0 * horizon * log / (3.0 * visits)
            if problem.reward is None:
                fixed += reward_width(counts, log)

        arrived = jnp.sum(counts.visits, axis=-1)
        # The last step's states lead nowhere, so nothing needs to be known of what follows them.
        arrived_next = jnp.concatenate([arrived[1:], jnp.full((1, states), jnp.inf)])
        constant = 1e4 * horizon**3 * states**2 * actions * jnp.square(log)
        uncertainty = jnp.minimum(constant / at_least_once(arrived_next), horizon**2)

        def one(value, step):
            following, visits, reward, fixed, uncertainty, old = step
            mean, variance = expected_next(following, visits, value)
            bonus = fixed
            if self.bonus == "bernstein":
                times = at_least_once(visits)
                bonus += jnp.sqrt(8.0 * log * variance / times)
                bonus += jnp.sqrt(8.0 * (following @ uncertainty) / times) / jnp.sqrt(times)
            # The old values begin at the cap, so that it holds for the new ones.
            action_value = jnp.minimum(reward + mean + self.bonus_scale * bonus, old)
            action_value = jnp.where(visits > 0.0, action_value, old)
            return jnp.max(action_value, axis=-1), action_value

        steps = (counts.following, counts.visits, reward, fixed, uncertainty, old)
        return jax.lax.scan(one, jnp.zeros(states), steps, reverse=True)[1]
