"""Reward-free learning of a low-rank model."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, probability
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractFeatures, AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.linear.low_rank import (
    Oracle,
    count_targets,
    exploring_policies,
    task_bonuses,
    transitions,
)
from headwater.ops.tabular.counts import mean_reward
from headwater.ops.tabular.planning import optimal_values
from headwater.parts.low_rank_exploration import (
    LowRankExploration,
    begin_low_rank,
    likeliest_factors,
    log_class_sizes,
)


class RAFFLE(
    AbstractMethod[FiniteProblem, Episodes, LowRankExploration],
    AbstractTablePolicy[LowRankExploration],
    AbstractFeatures[LowRankExploration],
):
    r"""Explores one process for a low-rank model that is accurate whatever the rewards are.

    In iteration $n$, for every step $h$: episodes that follow $\pi$ up to $h - 2$, then act
    uniformly; each gives one $(s_h, a_h, s_{h+1})$. Then $\hat P_h = \langle \hat\phi_h, \hat\mu_h
    \rangle$ maximises the likelihood, $b_h = \min\{\alpha \|\hat\phi_h\|_{U_h^{-1}}, 1\}$ with
    $U_h = \lambda I + \sum \hat\phi \hat\phi^\top$, and $\pi$ maximises the truncated value
    $Q_h = \min\{1, b_h + \hat P_h V_{h+1}\}$.

    With `constants="theorem"`, $L_n = \ln(2 |\Phi| |\Psi| n H / \delta)$, $\lambda = d \ln(|\Phi| n
    H / \delta)$ and $\alpha = 5 \sqrt{A L_n + \lambda d}$, which leave all bonuses at one for
    thousands of iterations. The judged policy is the best one in the model for the problem's
    rewards, or for the means of those seen.

    **Arguments:**

    - `rank`: d, the number of features.
    - `episodes_per_step`: episodes per step in an iteration.
    - `oracle`: features are one of `rank` kinds, or mixtures of kinds.
    - `constants`: `bonus_scale` and `ridge` are α and λ, or multiply the theorem's.
    - `bonus_scale`, `ridge`: α and λ, as `constants` reads them.
    - `failure_probability`: δ.
    - `smoothing`: added to all counts of next states where measures are estimated.
    - `num_restarts`: of the search for the factors, beside the one from the last factors.

    **Reference:** Cheng, Huang, Yang, Liang (2023), arXiv:2303.10859.

    **Differences from the paper:** expectation maximisation with restarts instead of an oracle for
    the likelihood; `episodes_per_step` episodes where the paper has one. Where truncation makes
    actions equal, the one with the larger value before truncation is taken. The last step has no
    bonus, since nothing follows it. $\ln|\Phi| = SA \ln d$ is exact for kinds, $\ln|\Psi| = dS
    \ln(1 + n)$ that of a net.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "cheng2023improved",
        summary="reward-free exploration of one process with a low-rank model",
    )

    rank: int = integer(4)
    episodes_per_step: int = integer(8)
    oracle: Oracle = choice("mixture")
    constants: Literal["practical", "theorem"] = choice("practical")
    bonus_scale: float = non_negative(1.0)
    ridge: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    smoothing: float = non_negative(0.05)
    num_restarts: int = integer(10, low=0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> LowRankExploration:
        problem.require_one_task("RAFFLE")
        return begin_low_rank(self, problem, "RAFFLE", key=key)

    def update(self, state: LowRankExploration, data: Episodes, *, key: PRNGKeyArray):
        problem, updates = state.problem, state.updates + 1
        counts = count_targets(state.counts, data, problem)
        factors = likeliest_factors(self, counts.following[None], state.factors, key=key)
        scale, ridge, log = self._constants(problem, updates)
        bonus = task_bonuses(factors.feature, counts.visits[None], scale, ridge)[0]
        explorer, value = truncated_plan(transitions(factors)[0], bonus)
        largest = jnp.dot(problem.require_initial("RAFFLE"), value)
        metrics = {
            "truncated_value": largest,
            "model_error_bound": 2.0 * largest + 2.0 * jnp.sqrt(problem.actions * log / updates),
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
        }
        return LowRankExploration(counts, factors, explorer, updates, problem), metrics

    def policy(self, state: LowRankExploration, *, explore: bool):
        if explore:
            return exploring_policies(state.explorer, episodes=self.episodes_per_step)
        return optimal_values(self.model(state)).policy

    def features(self, state: LowRankExploration) -> Array:
        return state.factors.feature

    def model(self, state: LowRankExploration) -> FiniteProcess:
        """The learned process, with the problem's rewards or the means of those seen."""
        problem = state.problem
        reward = problem.reward
        if reward is None:
            reward = mean_reward(state.counts, problem)
        initial = problem.require_initial("RAFFLE")
        return FiniteProcess(transitions(state.factors)[0], reward, initial)

    def _constants(self, problem: FiniteProblem, updates: Int[Array, ""]):
        """α, λ and the logarithm $L_n$."""
        horizon, _, actions = problem.sizes
        features, measures = log_class_sizes(self.rank, problem, updates)
        common = jnp.log(updates * horizon / self.failure_probability)
        log = jnp.log(2.0) + features + measures + common
        if self.constants == "practical":
            return self.bonus_scale, self.ridge, log
        ridge = self.ridge * self.rank * (features + common)
        scale = 5.0 * jnp.sqrt(actions * log + ridge * self.rank)
        return self.bonus_scale * scale, ridge, log


def truncated_plan(
    transition: Float[Array, "horizon state action state"],
    bonus: Float[Array, "horizon state action"],
) -> tuple[Float[Array, "horizon state action"], Float[Array, " state"]]:
    """The policy that maximises the sum of bonuses cut at one, and the first step's values."""

    def one(value, step):
        transition, bonus = step
        action_value = bonus + transition @ value
        chosen = jax.nn.one_hot(jnp.argmax(action_value, axis=-1), bonus.shape[-1])
        return jnp.minimum(jnp.max(action_value, axis=-1), 1.0), chosen

    counted = bonus.at[-1].set(0.0)
    value, policy = jax.lax.scan(
        one, jnp.zeros(bonus.shape[1]), (transition, counted), reverse=True
    )
    return policy, value
