"""Optimistic value iteration with zero reward."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, probability
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.control.exploration import shared_among_best
from headwater.ops.tabular.counts import Counts, at_least_once, expected_next
from headwater.ops.tabular.experience import count_steps, learned_process, no_steps
from headwater.ops.tabular.planning import optimal_values


class VIZeroState(eqx.Module):
    """Counts, optimistic values of no reward, and the counts when these were lowest."""

    counts: Counts
    action_value: Float[Array, "horizon state action"]
    lowest: Float[Array, ""]
    best: Counts
    problem: FiniteProblem


class VIZero(
    AbstractMethod[FiniteProblem, Episodes, VIZeroState], AbstractTablePolicy[VIZeroState]
):
    r"""Plans optimistically for no reward at all, and so collects bonuses wherever they are left.

    $Q_h = \min\{(1 + 1/H) \hat P V_{h+1} + \beta, H\}$, $V_h = \max_a Q_h$, with $\beta =
    \sqrt{H^2 \iota / N} + H^2 S \iota / N$ and $\iota = \ln(SAHK/\delta)$. Whenever $V_1$ of the
    first state is lower than ever, the model is kept; what is planned for later, for any reward or
    constraint, is planned in the model that was kept last.

    **Arguments:**

    - `stationary`: the process is the same at every step, so counts are added up over steps.
    - `bonus_scale`: multiplies β. With 1 it is the theorem's up to a constant and stays at H for
      very long; about 1e-5 is practical.
    - `failure_probability`: δ.
    - `num_episodes`: K, over which the guarantee holds.

    **Reference:** Liu, Yu, Bai, Jin (2021), arXiv:2010.01604; recommended as the explorer for
    constrained problems by Miryoosefi and Jin (2022), arXiv:2107.05216.

    **Differences from the paper:** for one player; its unnamed constants are one; of equally
    uncertain actions one is taken at random, and actions never taken are as uncertain as can be
    even if the bonus is scaled. The greedy policy is that for the known rewards, and where there
    are none, the exploring one.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "liu2021sharp",
        summary="explores a finite process by collecting bonuses, and keeps the surest model",
        parents=("RFUCRL",),
    )

    stationary: bool = flag(False)
    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(10_000.0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> VIZeroState:
        problem.require_one_task("VIZero")
        counts = no_steps(problem, stationary=self.stationary)
        highest = jnp.full((), problem.horizon, jnp.float32)
        return VIZeroState(counts, self._values(counts, problem), highest, counts, problem)

    def update(self, state: VIZeroState, data: Episodes, *, key: PRNGKeyArray):
        counts = count_steps(state.counts, data, state.problem)
        action_value = self._values(counts, state.problem)
        value = jnp.mean(jnp.max(action_value[0], axis=-1)[data.state[..., 0]])
        lower = value < state.lowest
        best = jax.tree.map(lambda new, old: jnp.where(lower, new, old), counts, state.best)
        lowest = jnp.minimum(value, state.lowest)
        seen = jnp.mean((counts.visits > 0.0).astype(jnp.float32))
        metrics = {"value": value, "lowest": lowest, "seen": seen}
        return VIZeroState(counts, action_value, lowest, best, state.problem), metrics

    def policy(self, state: VIZeroState, *, explore: bool):
        if explore or state.problem.reward is None:
            return shared_among_best(state.action_value)
        return optimal_values(self.model(state, state.problem.reward)).policy

    def model(
        self,
        state: VIZeroState,
        reward: Float[Array, "horizon state action"],
        cost: Float[Array, "horizon state action constraint"] | None = None,
    ) -> FiniteProcess:
        """The kept model with these rewards and costs: see `ops.experience.learned_process`."""
        if state.problem.initial is None:
            raise SpecificationError("planning needs to know where episodes start: give `initial`")
        return learned_process(state.best, state.problem, reward=reward, cost=cost)

    def _values(self, counts: Counts, problem: FiniteProblem):
        horizon, states, actions = problem.sizes
        log = jnp.log(states * actions * horizon * self.num_episodes / self.failure_probability)
        visits = at_least_once(counts.visits)
        bonus = jnp.sqrt(horizon**2 * log / visits) + horizon**2 * states * log / visits

        def one(value, time):
            at = 0 if self.stationary else time
            visits = counts.visits[at]
            mean = expected_next(counts.following[at], visits, value)[0]
            uncertainty = self.bonus_scale * bonus[at]
            action_value = jnp.minimum((1.0 + 1.0 / horizon) * mean + uncertainty, horizon)
            action_value = jnp.where(visits > 0.0, action_value, horizon)
            return jnp.max(action_value, axis=-1), action_value

        return jax.lax.scan(one, jnp.zeros(states), jnp.arange(horizon), reverse=True)[1]
