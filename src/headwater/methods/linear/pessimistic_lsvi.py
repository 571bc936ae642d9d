"""Pessimistic value iteration on a log, for linear processes."""

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
    add_episodes,
    check_features,
    features_of,
    fitted_values,
    no_sums,
)
from headwater.ops.tabular.planning import greedy_table


class PEVIState(eqx.Module):
    """Features, pessimistic values of rewards in [0, 1], and the penalties in them."""

    features: Float[Array, "horizon state action feature"]
    action_value: Float[Array, "horizon state action"]
    penalty: Float[Array, "horizon state action"]
    problem: FiniteProblem


class PEVI(
    AbstractMethod[FiniteProblem, Episodes, PEVIState],
    AbstractTablePolicy[PEVIState],
    AbstractLinear[FiniteProblem, PEVIState],
):
    r"""Fits values that are linear in features to a log, less a penalty where features are new.

    $\hat w_h = \Lambda_h^{-1} \sum_\tau \phi(s_h^\tau, a_h^\tau) [r_h^\tau + \hat
    V_{h+1}(s_{h+1}^\tau)]$ with $\Lambda_h = \lambda I + \sum_\tau \phi \phi^\top$, $\Gamma_h =
    \beta \|\phi\|_{\Lambda_h^{-1}}$, $\hat Q_h = \mathrm{clip}(\phi^\top \hat w_h - \Gamma_h, 0,
    H - h + 1)$, $\hat V_h = \max_a \hat Q_h$, and $\beta = c\,d\,H \sqrt{\ln(2dHK/\xi)}$ for K
    episodes. The greedy policy falls short by at most $2 \sum_h E_{\pi^*}[\Gamma_h]$.

    One update learns everything from the log it is given, and forgets what was learned before.
    The problem's `features` are used, or else one for each state and action. `with_features` starts
    from others, such as those that an earlier stage learned.

    **Arguments:**

    - `penalty_scale`: c, which the paper leaves open. At 1 nothing is worth doing for very long;
      between 0.003 and 0.03 is practical, and 0 is greedy.
    - `ridge`: λ.
    - `failure_probability`: ξ.
    - `max_return`: what no episode can earn more than, as a share of the horizon; it stands
      for H in the penalty and limits values besides the steps left.

    **Reference:** Jin, Yang, Wang (2020), arXiv:2012.15085.

    **Differences from the paper:** rewards that are known are added instead of regressed. Features
    should have norms of at most one.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "jin2021pessimism",
        summary="pessimistic least-squares value iteration on a log, with given features",
        parents=("LSVIUCB",),
    )

    penalty_scale: float = non_negative(1.0)
    ridge: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    max_return: float = non_negative(1.0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> PEVIState:
        problem.require_one_task("PEVI")
        return self.with_features(problem, features_of(problem, "PEVI"))

    def with_features(self, problem: FiniteProblem, features: Array) -> PEVIState:
        features = check_features(features, problem, "PEVI")
        nothing = jnp.zeros(problem.sizes)
        return PEVIState(features, nothing, nothing, problem)

    def update(self, state: PEVIState, data: Episodes, *, key: PRNGKeyArray):
        problem, size = state.problem, state.features.shape[-1]
        horizon, episodes = problem.horizon, data.reward.size // problem.horizon
        highest = self.max_return * horizon
        log = jnp.log(2.0 * size * horizon * episodes / self.failure_probability)
        radius = self.penalty_scale * size * highest * jnp.sqrt(log)
        fitted = fitted_values(
            add_episodes(no_sums(state.features), state.features, data, problem),
            state.features,
            problem.unit_reward,
            ridge=self.ridge,
            radius=-radius,
            low=0.0,
            high=jnp.minimum(jnp.arange(horizon, 0.0, -1.0), highest),
        )
        penalty = radius * fitted.norm
        value = jnp.max(fitted.action_value[0], axis=-1)
        metrics = {
            "pessimistic_value": problem.from_unit(
                jnp.mean(value[data.state[..., 0]]), problem.horizon
            ),
            "penalty": problem.reward_scale * jnp.mean(penalty),
        }
        return PEVIState(state.features, fitted.action_value, penalty, problem), metrics

    def policy(self, state: PEVIState, *, explore: bool):
        return greedy_table(state.action_value)[0]
