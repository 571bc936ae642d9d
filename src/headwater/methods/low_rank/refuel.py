"""Reward-free multitask learning of a representation that tasks share."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, probability
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractFeatures, AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.linear.low_rank import (
    Oracle,
    count_targets,
    exploring_policies,
    plan_jointly,
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


class REFUEL(
    AbstractMethod[FiniteProblem, Episodes, LowRankExploration],
    AbstractTablePolicy[LowRankExploration],
    AbstractFeatures[LowRankExploration],
):
    r"""Explores several tasks at once for a model whose features they share, whatever the rewards.

    In iteration $n$, for every task $t$ and step $h$: episodes that follow $\pi^t$ up to $h - 2$,
    then act uniformly; each gives one $(s_h, a_h, s_{h+1})$. Then

    - $\hat\phi_h, \hat\mu^{1:T}_h = \arg\max \sum_t \sum \log \langle \phi(s, a), \mu^t(s')
      \rangle$ and $\hat P^t_h = \langle \hat\phi_h, \hat\mu^t_h \rangle$;
    - $U^t_h = \lambda I + \sum \hat\phi \hat\phi^\top$ and $b^t_h = \min\{\alpha
      \|\hat\phi_h\|_{(U^t_h)^{-1}}, 1\}$;
    - $\pi^{1:T}$ maximises the pseudo-cumulative value $\sum_{h < H} \sqrt{\sum_t (E_{\hat P^t,
      \pi^t} b^t_h)^2}$.

    With `constants="theorem"`, $L_n = \ln(2 |\Phi| |\Psi|^T n H / \delta)$, $\lambda = d \ln(|\Phi|
    n T H / \delta)$ and $\alpha = 5 \sqrt{2 A L_n + \lambda T d}$; they promise the bound that is
    logged, but leave all bonuses at one for thousands of iterations. The judged policy is the best
    one in the model for the problem's rewards, or for the means of those seen.

    **Arguments:**

    - `rank`: d, the number of features.
    - `episodes_per_step`: episodes per task and step in an iteration.
    - `oracle`: features are one of `rank` kinds, or mixtures of kinds.
    - `exploration`: `uniform` never plans (a control).
    - `constants`: `bonus_scale` and `ridge` are α and λ, or multiply the theorem's.
    - `bonus_scale`, `ridge`: α and λ, as `constants` reads them.
    - `failure_probability`: δ.
    - `smoothing`: added to all counts of next states where measures are estimated.
    - `num_restarts`: of the search for the factors, beside the one from the last factors.
    - `num_planning_rounds`: of planning; one plans every task for itself.

    **Reference:** Cheng, Feng, Yang, Zhang, Liang (2022), arXiv:2206.05900.

    **Differences from the paper:** oracles become searches: expectation maximisation with restarts
    for the likelihood, and for the value linearisation, which never decreases it; there are
    `episodes_per_step` episodes where the paper has one. $\ln|\Phi| = SA \ln d$ is exact for kinds,
    $\ln|\Psi| = dS \ln(1 + n)$ that of a net. Episodes that were not played for a step (logs) count
    in full.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "cheng2022provable",
        summary="reward-free exploration of several tasks for the features that they share",
        parents=("RAFFLE",),
    )

    rank: int = integer(4)
    episodes_per_step: int = integer(8)
    oracle: Oracle = choice("mixture")
    exploration: Literal["planned", "uniform"] = choice("planned")
    constants: Literal["practical", "theorem"] = choice("practical")
    bonus_scale: float = non_negative(1.0)
    ridge: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    smoothing: float = non_negative(0.05)
    num_restarts: int = integer(10, low=0)
    num_planning_rounds: int = integer(3)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> LowRankExploration:
        tasks = problem.require_tasks("REFUEL")
        return begin_low_rank(self, problem, "REFUEL", tasks=tasks, key=key)

    def update(self, state: LowRankExploration, data: Episodes, *, key: PRNGKeyArray):
        problem, updates = state.problem, state.updates + 1
        counts = jax.vmap(lambda c, d: count_targets(c, d, problem))(state.counts, data)
        factors = likeliest_factors(self, counts.following, state.factors, key=key)
        scale, ridge, log = self._constants(problem, updates)
        bonus = task_bonuses(factors.feature, counts.visits, scale, ridge)
        initial = problem.require_initial("REFUEL")
        explorer, values = plan_jointly(
            transitions(factors), bonus, initial, rounds=self.num_planning_rounds
        )
        value = jnp.max(values)
        if self.exploration == "uniform":
            explorer = state.explorer
        tasks = problem.require_tasks("REFUEL")
        uncertainty = jnp.sqrt(problem.actions * log / updates / tasks)
        metrics = {
            "pseudo_cumulative_value": value,
            "model_error_bound": 2.0 * value / tasks + 2.0 * uncertainty,
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
        }
        return LowRankExploration(counts, factors, explorer, updates, problem), metrics

    def policy(self, state: LowRankExploration, *, explore: bool):
        if explore:
            return jax.vmap(lambda p: exploring_policies(p, episodes=self.episodes_per_step))(
                state.explorer
            )
        return jax.vmap(optimal_values)(self.model(state)).policy

    def features(self, state: LowRankExploration) -> Array:
        return state.factors.feature

    def model(self, state: LowRankExploration) -> FiniteProcess:
        """The learned processes, stacked over tasks, with the problem's rewards or those seen."""
        reward = state.problem.reward
        if reward is None:
            reward = jax.vmap(lambda c: mean_reward(c, state.problem))(state.counts)
        initial = state.problem.require_initial("REFUEL")
        return FiniteProcess(transitions(state.factors), reward, initial)

    def _constants(self, problem: FiniteProblem, updates: Int[Array, ""]):
        """α, λ and the logarithm $L_n$."""
        tasks = problem.require_tasks("REFUEL")
        horizon, _, actions = problem.sizes
        features, measures = log_class_sizes(self.rank, problem, updates)
        common = jnp.log(updates * horizon / self.failure_probability)
        log = jnp.log(2.0) + features + tasks * measures + common
        if self.constants == "practical":
            return self.bonus_scale, self.ridge, log
        ridge = self.rank * (features + jnp.log(float(tasks)) + common)
        ridge *= self.ridge
        scale = 5.0 * jnp.sqrt(2.0 * actions * log + ridge * tasks * self.rank)
        return self.bonus_scale * scale, ridge, log
