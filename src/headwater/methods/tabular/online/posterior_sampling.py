"""Posterior sampling for reinforcement learning."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.counts import Counts, count, no_counts
from headwater.ops.tabular.planning import greedy_table, optimal_values
from headwater.parts.planned_values import PlannedValues, episode_metrics


class PosteriorSampling(
    AbstractMethod[FiniteProblem, Episodes, PlannedValues],
    AbstractTablePolicy[PlannedValues],
):
    r"""Acts for an episode as is best in one process drawn from the posterior.

    $P_h(\cdot \mid s, a) \sim \mathrm{Dirichlet}(\alpha + N_h(s, a, \cdot))$ and
    $r_h(s, a) \sim \mathrm{Beta}(\beta + \sum r, \beta + \sum (1 - r))$, where rewards are not
    known. The policy that is judged is best in the posterior's mean.

    **Arguments:**

    - `concentration`: α, of each next state; 1 is the uniform prior over distributions, and
      one over the number of states leaves more doubt where next states are few.
    - `reward_concentration`: β.

    **Reference:** Osband, Russo, Van Roy (2013), arXiv:1306.0940.

    **Differences from the paper:** the prior of rewards is conjugate to rewards of zero or one, and
    wider than need be for others in [0, 1] (the paper's experiments have a normal one); the
    process may differ from step to step, so that each step has rows of its own.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "osband2013more",
        summary="Thompson sampling of whole finite processes",
    )

    concentration: float = non_negative(1.0)
    reward_concentration: float = non_negative(1.0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> PlannedValues:
        problem.require_one_task("PosteriorSampling")
        counts = no_counts(problem)
        return PlannedValues(counts, self._draw(counts, problem, key), problem)

    def update(self, state: PlannedValues, data: Episodes, *, key: PRNGKeyArray):
        counts = count(state.counts, data, state.problem)
        action_value = self._draw(counts, state.problem, key)
        metrics = episode_metrics(data, action_value, "sampled_value", state.problem)
        return PlannedValues(counts, action_value, state.problem), metrics

    def policy(self, state: PlannedValues, *, explore: bool):
        if explore:
            return greedy_table(state.action_value)[0]
        counts, problem = state.counts, state.problem
        concentrations = self.concentration + counts.following
        reward = problem.unit_reward
        if reward is None:
            reward_sum = self.reward_concentration + counts.reward.total[..., 0]
            reward = reward_sum / (2.0 * self.reward_concentration + counts.visits)
        return _best(
            concentrations / jnp.sum(concentrations, axis=-1, keepdims=True), reward
        ).policy

    def _draw(self, counts: Counts, problem: FiniteProblem, key: PRNGKeyArray):
        row_key, reward_key = jax.random.split(key)
        rows = jax.random.dirichlet(row_key, self.concentration + counts.following)
        reward = problem.unit_reward
        if reward is None:
            reward_sum = jnp.clip(counts.reward.total[..., 0], 0.0, counts.visits)
            above = self.reward_concentration + reward_sum
            below = self.reward_concentration + counts.visits - reward_sum
            reward = jax.random.beta(reward_key, above, below)
        return _best(rows, reward).action_value


def _best(transition: Array, reward: Array):
    anywhere = jnp.zeros(transition.shape[-1], transition.dtype)
    return optimal_values(FiniteProcess(transition, reward, anywhere))
