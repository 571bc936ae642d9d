"""Least-squares value iteration with upper confidence bounds."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractLinear, AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.linear.least_squares import (
    FeatureSums,
    add_episodes,
    check_features,
    features_of,
    fitted_values,
    no_sums,
)
from headwater.ops.tabular.planning import greedy_table
from headwater.parts.planned_values import episode_metrics


class LSVIUCBState(eqx.Module):
    """Features, the data's sums, and the optimistic values of rewards in [0, 1] fitted to them."""

    features: Float[Array, "horizon state action feature"]
    sums: FeatureSums
    action_value: Float[Array, "horizon state action"]
    problem: FiniteProblem


class LSVIUCB(
    AbstractMethod[FiniteProblem, Episodes, LSVIUCBState],
    AbstractTablePolicy[LSVIUCBState],
    AbstractLinear[FiniteProblem, LSVIUCBState],
):
    r"""Fits values that are linear in features, and adds a bonus where features are new.

    $w_h = \Lambda_h^{-1} \sum_\tau \phi(s_h^\tau, a_h^\tau) [r_h^\tau + \max_a
    Q_{h+1}(s_{h+1}^\tau, a)]$ with $\Lambda_h = \lambda I + \sum_\tau \phi \phi^\top$, over all
    data so far, and $Q_h = \min\{\phi^\top w_h + \beta \|\phi\|_{\Lambda_h^{-1}}, H\}$ with
    $\beta = c\,d\,H \sqrt{\ln(2dT/p)}$, $T = KH$. Every episode refits and acts greedily.

    The problem's `features` are used, or else one for each state and action, with which this is
    value iteration in the empirical model. `with_features` starts from others, such as those that
    an earlier stage learned.

    **Arguments:**

    - `bonus_scale`: c, which the paper leaves open. At 1 regret stays linear for very long; between
      0.003 and 0.03 is practical, and 0 is greedy.
    - `ridge`: λ.
    - `failure_probability`: p.
    - `num_episodes`: K, over which the guarantee holds.
    - `max_return`: what no episode can earn more than, as a share of the horizon; it stands
      for H, in the bonus and where values are clipped.

    **Reference:** Jin, Yang, Wang, Jordan (2019), arXiv:1907.05388.

    **Differences from the paper:** states are finite, so that sums by next state hold all data and
    an episode's cost does not grow with their number. Rewards that are known are added instead of
    regressed. Features should have norms of at most one.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "jin2020provably",
        summary="optimistic least-squares value iteration on given features",
    )

    bonus_scale: float = non_negative(1.0)
    ridge: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(10_000.0)
    max_return: float = non_negative(1.0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> LSVIUCBState:
        problem.require_one_task("LSVIUCB")
        return self.with_features(problem, features_of(problem, "LSVIUCB"))

    def with_features(self, problem: FiniteProblem, features: Array) -> LSVIUCBState:
        features = check_features(features, problem, "LSVIUCB")
        highest, radius = self._bounds(problem, features)
        # Where nothing was seen, all weights are zero.
        norm = jnp.linalg.norm(features, axis=-1) / jnp.sqrt(self.ridge)
        known = problem.unit_reward
        reward = jnp.zeros_like(norm) if known is None else known
        action_value = jnp.minimum(reward + radius * norm, highest)
        return LSVIUCBState(features, no_sums(features), action_value, problem)

    def update(self, state: LSVIUCBState, data: Episodes, *, key: PRNGKeyArray):
        sums = add_episodes(state.sums, state.features, data, state.problem)
        highest, radius = self._bounds(state.problem, state.features)
        fitted = fitted_values(
            sums,
            state.features,
            state.problem.unit_reward,
            ridge=self.ridge,
            radius=radius,
            low=-jnp.inf,
            high=highest,
        )
        metrics = episode_metrics(data, fitted.action_value, "optimistic_value", state.problem)
        metrics["norm"] = jnp.mean(fitted.norm)
        return LSVIUCBState(state.features, sums, fitted.action_value, state.problem), metrics

    def policy(self, state: LSVIUCBState, *, explore: bool):
        return greedy_table(state.action_value)[0]

    def _bounds(self, problem: FiniteProblem, features: Array) -> tuple[Array, Array]:
        """What no episode earns more than, and β."""
        horizon, size = problem.horizon, features.shape[-1]
        highest = jnp.asarray(self.max_return * horizon, jnp.float32)
        log = jnp.log(2.0 * size * self.num_episodes * horizon / self.failure_probability)
        return highest, self.bonus_scale * size * highest * jnp.sqrt(log)
