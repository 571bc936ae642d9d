"""Optimism in a low-rank model whose features are learned along the way."""

from typing import ClassVar, Literal

import equinox as eqx
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
    task_bonuses,
    transitions,
)
from headwater.ops.tabular.counts import Counts, no_counts
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.parts.low_rank_exploration import (
    LowRankExploration,
    begin_low_rank,
    likeliest_factors,
    log_class_sizes,
)


class RepUCBState(eqx.Module):
    """Counts of the steps that were rolled in; and of the uniform ones, factors and the policy."""

    rolled_in: Counts
    explored: LowRankExploration


class RepUCB(
    AbstractMethod[FiniteProblem, Episodes, RepUCBState],
    AbstractTablePolicy[RepUCBState],
    AbstractFeatures[RepUCBState],
):
    r"""Learns features of one process while it explores for a known reward.

    Episodes for step $h$ follow $\pi$ up to $h - 2$, then act uniformly: $(s_{h-1}, a_{h-1}, s_h)$
    goes into $D_{h-1}$ and $(s_h, a_h, s_{h+1})$ into $D'_h$. $\hat P_h = \langle \hat\phi_h,
    \hat\mu_h \rangle$ is the likeliest model of $D_h \cup D'_h$; $b_h = \min\{\alpha
    \|\hat\phi_h\|_{\Sigma_h^{-1}}, 2\}$ with $\Sigma_h = \lambda I + \sum_{D_h} \hat\phi
    \hat\phi^\top$; and $\pi$ is best in $\hat P$ for $r + b$.

    With `constants="theorem"`, $\lambda = d \ln(n |M| / \delta)$ and $\alpha = \sqrt{(A + d^2)
    \ln(n |M| / \delta)}$. The judged policy is the best one in the model for $r$.

    **Arguments:**

    - `rank`: d, the number of features.
    - `episodes_per_step`: episodes per step in an iteration.
    - `oracle`: features are one of `rank` kinds, or mixtures of kinds.
    - `constants`: `bonus_scale` and `ridge` are α and λ, or multiply the theorem's. α is
      in units of the reward: 1 explores well where an episode earns at most one.
    - `bonus_scale`, `ridge`: α and λ, as `constants` reads them.
    - `failure_probability`: δ.
    - `smoothing`: added to all counts of next states where measures are estimated.
    - `num_restarts`: of the search for the factors, beside the one from the last factors.

    **Reference:** Uehara, Zhang, Sun (2022), arXiv:2110.04652.

    **Differences from the paper:** a finite horizon, with factors for each step and episodes for
    each step where the paper draws one from a discounted distribution; hence no factor of the
    discount in α. Expectation maximisation with restarts instead of an oracle for the likelihood.
    The paper returns a mixture of all optimistic policies. The last step has no bonus, since
    nothing follows it.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "uehara2022representation",
        summary="optimistic planning in a low-rank model with learned features",
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

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> RepUCBState:
        problem.require_one_task("RepUCB")
        problem.require_reward("RepUCB")
        return RepUCBState(no_counts(problem), begin_low_rank(self, problem, "RepUCB", key=key))

    def update(self, state: RepUCBState, data: Episodes, *, key: PRNGKeyArray):
        before = state.explored
        problem, updates = before.problem, before.updates + 1
        rolled_in = count_targets(state.rolled_in, data, problem, back=1)
        uniform = count_targets(before.counts, data, problem)
        following = (rolled_in.following + uniform.following)[None]
        factors = likeliest_factors(self, following, before.factors, key=key)
        scale, ridge, theorem = self._constants(problem, updates)
        bonus = task_bonuses(factors.feature, rolled_in.visits[None], scale, ridge, highest=2.0)[0]
        reward = problem.require_reward("RepUCB") + bonus.at[-1].set(0.0)
        optimistic = FiniteProcess(
            transitions(factors)[0], reward, problem.require_initial("RepUCB")
        )
        explorer = optimal_values(optimistic).policy
        metrics = {
            "optimistic_value": expected_return(optimistic, explorer),
            "theorem_bonus_scale": theorem,
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
        }
        explored = LowRankExploration(uniform, factors, explorer, updates, problem)
        return RepUCBState(rolled_in, explored), metrics

    def policy(self, state: RepUCBState, *, explore: bool):
        if explore:
            return exploring_policies(state.explored.explorer, episodes=self.episodes_per_step)
        return optimal_values(self.model(state)).policy

    def features(self, state: RepUCBState) -> Array:
        return state.explored.factors.feature

    def model(self, state: RepUCBState) -> FiniteProcess:
        """The learned process, with the problem's rewards."""
        problem = state.explored.problem
        reward, initial = problem.require_reward("RepUCB"), problem.require_initial("RepUCB")
        return FiniteProcess(transitions(state.explored.factors)[0], reward, initial)

    def _constants(self, problem: FiniteProblem, updates: Int[Array, ""]):
        """α, λ, and what the theorem wants α to be."""
        features, measures = log_class_sizes(self.rank, problem, updates)
        log = features + measures + jnp.log(updates / self.failure_probability)
        theorem = jnp.sqrt((problem.actions + self.rank**2) * log)
        if self.constants == "practical":
            return self.bonus_scale, self.ridge, theorem
        return self.bonus_scale * theorem, self.ridge * self.rank * log, theorem
