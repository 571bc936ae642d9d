"""Q-learning with upper confidence bounds."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.bonus import ValueCap, highest_values
from headwater.ops.tabular.planning import greedy_table


class Visited(eqx.Module):
    """What is remembered of each step, state and action, besides its value.

    **Arguments:** `times`; `mean`, `deviation`: of the next states' values when it was visited, and
    the sum of their squared deviations from it; `uncertainty`: the paper's β after the last visit.
    """

    times: Int[Array, "horizon state action"]
    mean: Float[Array, "horizon state action"]
    deviation: Float[Array, "horizon state action"]
    uncertainty: Float[Array, "horizon state action"]


class OptimisticQLearningState(eqx.Module):
    """Optimistic values of rewards in [0, 1], and what the next step towards a target needs."""

    action_value: Float[Array, "horizon state action"]
    visited: Visited
    problem: FiniteProblem


class OptimisticQLearning(
    AbstractMethod[FiniteProblem, Episodes, OptimisticQLearningState],
    AbstractTablePolicy[OptimisticQLearningState],
):
    r"""Learns optimistic values without a model, in time and memory that do not grow with $S^2$.

    At the $t$-th visit of a step, state and action, with $\alpha_t = (H+1)/(H+t)$,
    $V = \min\{H, \max_a Q\}$, $L = \ln(SAT/\delta)$ and $T = KH$:
    $Q_h \leftarrow (1-\alpha_t) Q_h + \alpha_t (r + V_{h+1}(s') + b_t)$, with either bonus:

    - Hoeffding (UCB-H): $b_t = c\sqrt{H^3L/t}$.
    - Bernstein (UCB-B): $b_t = (\beta_t - (1-\alpha_t)\beta_{t-1})/(2\alpha_t)$, $\beta_0 = 0$,
      $\beta_t = c\min\{\sqrt{(H/t)(W_t + H)L} + \sqrt{H^7SA}\,L/t, \sqrt{H^3L/t}\}$, where $W_t$
      is the variance of the values $V_{h+1}(s')$ at the visits so far.

    **Arguments:**

    - `bonus`: which of the two.
    - `bonus_scale`: $c$. The paper asks for a large enough constant; 1 bounds the deviations that
      its proof for UCB-H meets. About 0.01 is practical.
    - `failure_probability`: δ.
    - `num_episodes`: K, over which the guarantee holds.
    - `value_cap`: what $V$ may not exceed, and where values begin.

    **Reference:** Jin, Allen-Zhu, Bubeck, Jordan (2018), arXiv:1807.03765.

    **Differences from the paper:** one constant for both parts of UCB-B's bonus; rewards that are
    known are used in the place of those that were drawn; episodes that arrive together are learned
    from one after the other.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "jin2018q",
        summary="Q-learning that explores by optimism, without a model",
        parents=("Q-learning",),
    )

    bonus: Literal["hoeffding", "bernstein"] = choice("hoeffding")
    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(10_000.0)
    value_cap: ValueCap = choice("horizon")

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> OptimisticQLearningState:
        problem.require_one_task("OptimisticQLearning")
        zeros = (jnp.zeros(problem.sizes) for _ in range(3))
        visited = Visited(jnp.zeros(problem.sizes, jnp.int32), *zeros)
        highest = highest_values(problem, self.value_cap)
        return OptimisticQLearningState(highest, visited, problem)

    def update(self, state: OptimisticQLearningState, data: Episodes, *, key: PRNGKeyArray):
        state_sequence = data.state.reshape(-1, data.state.shape[-1])
        action = data.action.reshape(-1, data.action.shape[-1])
        reward = state.problem.in_unit(jnp.asarray(data.reward)).reshape(action.shape)

        def one(carry, episode):
            action_value, visited = carry
            return self._learn(action_value, visited, state.problem, *episode), None

        carry = state.action_value, state.visited
        (action_value, visited), _ = jax.lax.scan(one, carry, (state_sequence, action, reward))
        highest = highest_values(state.problem, self.value_cap)[0, 0, 0]
        first = jnp.max(action_value[0][data.state[..., 0]], axis=-1)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "optimistic_value": state.problem.from_unit(
                jnp.mean(jnp.minimum(first, highest)), state.problem.horizon
            ),
        }
        return OptimisticQLearningState(action_value, visited, state.problem), metrics

    def policy(self, state: OptimisticQLearningState, *, explore: bool):
        return greedy_table(state.action_value)[0]

    def _learn(self, action_value, visited: Visited, problem: FiniteProblem, state, action, reward):
        horizon = problem.horizon
        step = jnp.arange(horizon)
        at = step, state[:-1], action
        if problem.unit_reward is not None:
            reward = problem.unit_reward[at]
        # A step's values do not depend on this episode's change of the next step's: all at once.
        highest = highest_values(problem, self.value_cap)[:, 0, 0]
        following = jnp.max(action_value[step[1:], state[1:-1]], axis=-1)
        following = jnp.append(jnp.minimum(following, highest[1:]), 0.0)

        count = visited.times[at] + 1
        times = count.astype(jnp.float32)
        rate = (horizon + 1.0) / (horizon + times)
        # Welford's recursion: sums of squares would lose the variance in single precision.
        mean = visited.mean[at] + (following - visited.mean[at]) / times
        deviation = visited.deviation[at] + (following - visited.mean[at]) * (following - mean)
        uncertainty = self._uncertainty(times, deviation / times, problem)
        if self.bonus == "hoeffding":
            bonus = uncertainty
        else:
            bonus = (uncertainty - (1.0 - rate) * visited.uncertainty[at]) / (2.0 * rate)
        target = reward + following + bonus
        return (
            action_value.at[at].set((1.0 - rate) * action_value[at] + rate * target),
            Visited(
                visited.times.at[at].set(count),
                visited.mean.at[at].set(mean),
                visited.deviation.at[at].set(deviation),
                visited.uncertainty.at[at].set(uncertainty),
            ),
        )

    def _uncertainty(self, times, variance, problem: FiniteProblem) -> Float[Array, " horizon"]:
        horizon, states, actions = problem.sizes
        tuples = states * actions * self.num_episodes * horizon
        log = jnp.log(tuples / self.failure_probability)
        uncertainty = jnp.sqrt(horizon**3 * log / times)
        if self.bonus == "bernstein":
            fast = jnp.sqrt(float(horizon**7 * states * actions)) * log / times
            slow = jnp.sqrt(horizon / times * (variance + horizon) * log)
            uncertainty = jnp.minimum(uncertainty, slow + fast)
        return self.bonus_scale * uncertainty
