"""Robust planning from logged episodes, as a game between a policy and the transitions."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    count,
    estimated_transition,
    estimated_unit_reward,
    no_counts,
)
from headwater.ops.tabular.robust import RowBalls, no_regret_dynamics


class RobustNoRegretState(eqx.Module):
    """What was counted, and the policy that the game led to."""

    counts: Counts
    policy: Float[Array, "horizon state action"]
    problem: FiniteProblem


class RobustNoRegret(
    AbstractMethod[FiniteProblem, Episodes, RobustNoRegretState],
    AbstractTablePolicy[RobustNoRegretState],
):
    r"""Plans for the worst transitions near those of a log, by no-regret dynamics.

    Every row of the transitions may lie anywhere within a total variation distance

    $$\rho = \min\{1,\ \text{radius} + \text{confidence scale} / \sqrt{N}\}$$

    of the frequencies, $N$ how often the step was logged (everywhere, where it never was). In each
    of $T$ iterations the environment answers the policy with the worst of these transitions, and
    the policy takes a projected gradient step in them:
    $\pi \leftarrow \mathrm{Proj}(\pi + \eta\,t^{-1/2}\,d(s)\,Q(s, a))$.

    The policy that is returned is the iterate whose own worst case is best, which is at least as
    good as the mixture of all that the paper's guarantee is about. How far it may fall short of the
    best robust policy is known without the paper's analysis, and reported as `robust_gap`: no
    policy is worth more in the worst case than the best one is in the transitions of any iteration.

    For sets of independent rows, as here, robust value iteration (`ops.tabular.planning`) finds the
    same; `ops.tabular.robust.no_regret_dynamics` also takes sets in which rows move together, for
    which there is no such recursion. All episodes come in one update; further updates add to them,
    so a log must not be shown twice.

    **Arguments:**

    - `radius`: how far the process may have moved from the one that was logged, for every row.
    - `confidence_scale`: what is added for a row that was logged once.
    - `learning_rate`: η, for rewards rescaled to [0, 1]. Visits are spread over states, so that
      steps of a size that matters need a large one.
    - `num_iterations`: T.

    **Reference:** Guha (2024), arXiv:2305.19035.

    **Differences from the paper:** an episode ends after a fixed number of steps instead of
    discounting; the environment answers exactly, where the paper lets both learners follow the
    perturbed leader with projected gradients as oracle; the set is placed around a log.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "guha2024solving",
        summary="a policy against the worst transitions near a log, by no-regret play",
    )

    radius: float = non_negative(0.1)
    confidence_scale: float = non_negative(0.1)
    learning_rate: float = non_negative(100.0)
    num_iterations: int = integer(400)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> RobustNoRegretState:
        problem.require_one_task("RobustNoRegret")
        problem.require_initial("RobustNoRegret")
        uniform = jnp.full(problem.sizes, 1.0 / problem.actions, jnp.float32)
        return RobustNoRegretState(no_counts(problem), uniform, problem)

    def update(self, state: RobustNoRegretState, data: Episodes, *, key: PRNGKeyArray):
        problem = state.problem
        counts = count(state.counts, data, problem)
        around = self.uncertainty(counts)
        initial = problem.require_initial("RobustNoRegret")
        reward = estimated_unit_reward(counts, problem)
        played = no_regret_dynamics(
            FiniteProcess(around.nominal, reward, initial),
            around,
            iterations=self.num_iterations,
            policy_rate=self.learning_rate,
            environment_rate=0.0,
        )
        chosen = jnp.argmax(played.value)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "robust_value": problem.from_unit(played.value[chosen], problem.horizon),
            "robust_gap": problem.reward_scale
            * jnp.maximum(jnp.min(played.best) - played.value[chosen], 0.0),
        }
        return RobustNoRegretState(counts, played.policies[chosen], problem), metrics

    def policy(self, state: RobustNoRegretState, *, explore: bool):
        return state.policy

    def uncertainty(self, counts: Counts) -> RowBalls:
        """The transitions that the policy is to withstand."""
        near = self.radius + self.confidence_scale / jnp.sqrt(at_least_once(counts.visits))
        radius = jnp.where(counts.visits > 0, jnp.minimum(near, 1.0), 1.0)
        return RowBalls(estimated_transition(counts), radius)
