"""Episodic upper and lower exploration in reinforcement learning."""

from typing import ClassVar

import equinox as eqx
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
from headwater.parts.planned_values import episode_metrics, greedy_gap


class EULERState(eqx.Module):
    """Counts, and the bounds of values made from them, of rewards in [0, 1]; `lower` of states."""

    counts: Counts
    action_value: Float[Array, "horizon state action"]
    lower: Float[Array, "horizon state"]
    problem: FiniteProblem


class EULER(
    AbstractMethod[FiniteProblem, Episodes, EULERState],
    AbstractTablePolicy[EULERState],
    AbstractCertificate[EULERState],
):
    r"""Plans optimistically, with a bonus that shrinks with the distance to a pessimistic plan.

    With $\phi(V) = \sqrt{2L\,\mathrm{Var}_{\hat P}(V)/N} + HL/(3N)$ and the correction
    $c = (\frac43 HL + H\sqrt{2L})/N + \sqrt{2L}\,\|\bar V_{h+1} - \underline V_{h+1}\|_{2,\hat P}
    / \sqrt N$, $L = \ln(28SAT/\delta)$, $T = KH$:

    - $\bar Q_h = \min\{H - h + 1, \hat r + b^r + \hat P\bar V_{h+1} + \phi(\bar V_{h+1}) + c\}$;
    - $\underline V_h = \max\{0, \hat r - b^r + \hat P\underline V_{h+1} -
      \phi(\underline V_{h+1}) - c\}$ at the action that is best in $\bar Q_h$;
    - $b^r = \sqrt{2L\,\mathrm{Var}(r)/N} + 7L/(3N)$; zero where rewards are known.

    **Arguments:**

    - `bonus_scale`: multiplies all of the bonus. 1 is the theorem's; about 0.01 is practical.
    - `failure_probability`: δ.
    - `num_episodes`: K, over which the guarantee holds.
    - `value_cap`: what no value may exceed.

    **Reference:** Zanette, Brunskill (2019), arXiv:1901.00210.

    **Differences from the paper:** the process may differ from step to step, so counts are kept for
    each; what was never seen has the highest value, at any `bonus_scale`.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "zanette2019tighter",
        summary="optimistic planning whose bonus adapts to the variance of the process",
        parents=("UCBVI",),
    )

    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(10_000.0)
    value_cap: ValueCap = choice("remaining")

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> EULERState:
        problem.require_one_task("EULER")
        highest = highest_values(problem, self.value_cap)
        lower = jnp.zeros(problem.sizes[:2])
        return EULERState(no_counts(problem), highest, lower, problem)

    def update(self, state: EULERState, data: Episodes, *, key: PRNGKeyArray):
        problem = state.problem
        counts = count(state.counts, data, problem)
        action_value, lower = self._plan(counts, problem)
        metrics = episode_metrics(data, action_value, "optimistic_value", problem)
        low = jnp.mean(lower[0][data.state[..., 0]])
        metrics["pessimistic_value"] = problem.from_unit(low, problem.horizon)
        return EULERState(counts, action_value, lower, problem), metrics

    def policy(self, state: EULERState, *, explore: bool):
        return greedy_table(state.action_value)[0]

    def suboptimality_bound(self, state: EULERState) -> Float[Array, ""]:
        return greedy_gap(state.counts, state.action_value, state.problem, self.failure_probability)

    def _plan(self, counts: Counts, problem: FiniteProblem):
        horizon, states, actions = problem.sizes
        tuples = states * actions * self.num_episodes * horizon
        log = jnp.log(28.0 * tuples / self.failure_probability)
        visits = at_least_once(counts.visits)
        reward = estimated_unit_reward(counts, problem)
        known = problem.reward is not None
        width = jnp.zeros(problem.sizes) if known else reward_width(counts, log)
        # Of the correction and of phi, what falls as one over the visits.
        fast = (horizon * (5.0 / 3.0 * log + jnp.sqrt(2.0 * log))) / visits
        slow = jnp.sqrt(2.0 * log / visits)

        def one(values, step):
            following, visits, reward, width, fast, slow, highest = step
            upper, lower = values
            mean, variance = expected_next(following, visits, upper)
            low_mean, low_variance = expected_next(following, visits, lower)
            apart = following @ jnp.square(upper - lower) / at_least_once(visits)
            shared = width + fast + slow * jnp.sqrt(apart)
            bonus = self.bonus_scale * (shared + slow * jnp.sqrt(variance))
            penalty = self.bonus_scale * (shared + slow * jnp.sqrt(low_variance))
            unseen = visits == 0.0
            action_value = jnp.minimum(reward + mean + bonus, highest)
            action_value = jnp.where(unseen, highest, action_value)
            low_value = jnp.maximum(reward + low_mean - penalty, 0.0)
            low_value = jnp.where(unseen, 0.0, low_value)
            chosen = jnp.argmax(action_value, axis=-1)[:, None]
            lower = jnp.take_along_axis(low_value, chosen, axis=-1)[:, 0]
            return (jnp.max(action_value, axis=-1), lower), (action_value, lower)

        highest = highest_values(problem, self.value_cap)
        steps = (counts.following, counts.visits, reward, width, fast, slow, highest)
        zero = jnp.zeros(states)
        return jax.lax.scan(one, (zero, zero), steps, reverse=True)[1]
