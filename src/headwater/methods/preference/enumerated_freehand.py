"""Pessimistic planning from logged comparisons, with finite classes of rewards and models."""

from dataclasses import replace
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, probability
from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import FiniteHypotheses
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import EpisodeComparisons
from headwater.ops.linear.pessimistic_planning import plan_against_rewards
from headwater.ops.linear.preference import difference_of, log_likelihood, trajectory_features
from headwater.ops.tabular.counts import count_both, no_counts
from headwater.ops.tabular.planning import expected_return


class EnumeratedFREEHANDState(eqx.Module):
    """What the log leaves possible, and the policy that is best in the worst case."""

    rewards_possible: Bool[Array, " reward"]
    models_possible: Bool[Array, " model"]
    table: Float[Array, "horizon state action"]
    hypotheses: FiniteHypotheses


class EnumeratedFREEHAND(
    AbstractMethod[FiniteHypotheses, EpisodeComparisons, EnumeratedFREEHANDState],
    AbstractTablePolicy[EnumeratedFREEHANDState],
):
    r"""The best policy for the worst reward and model that logged comparisons leave possible.

    The **exact method for finite classes** that can be listed; `FREEHAND` is the relaxation for
    linear rewards. The sets are the paper's, level sets of the likelihood:

    $$\mathcal R = \{r \in \mathcal G : \ell(r) \ge \max_{r'} \ell(r') - \zeta_G\},\quad
    \mathcal P = \{P : \ell(P) \ge \max_{P'} \ell(P') - \zeta_P\},\quad
    \zeta = \ln(2\,|\text{class}|/\delta),$$

    with the likelihood of the answers, and of the transitions of both episodes. The truth is in
    both sets with probability 1 - δ, whatever chose the episodes: the likelihood ratio of any
    member to the truth has mean one, so that Markov's inequality bounds it. Then $\hat\pi =
    \arg\max_\pi \min_{r \in \mathcal R, P \in \mathcal P} J(\pi; r, P) - \hat E_{ref}\, r(\tau)$.

    With one model left in the set the maximum over all randomised policies is found up to the
    metric `gap`. With several models it is not concave: the answer is then the best, against all
    rewards and models, of the policies that are best for each single model, and `worst_case` is
    what it guarantees.

    **Arguments:**

    - `failure_probability`: δ.
    - `reference_episodes`: whose mean reward is compared with: the first episodes of the pairs, the
      second, or both. Comparisons cannot show a reward's shift, so that something has to take it
      out.
    - `num_iterations`: plans to make for each model.

    **Reference:** Zhan, Uehara, Kallus, Lee, Sun (2023), arXiv:2305.14816.

    **Differences from the paper:** ζ has the constant that the argument above gives; several
    models, as said; policies look at the step and the state, which is enough for rewards of steps.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "zhan2024offline",
        summary="plans for the worst of the listed rewards and models that comparisons allow",
    )

    failure_probability: float = probability(0.1)
    reference_episodes: Literal["first", "second", "both"] = choice("first")
    num_iterations: int = integer(500)

    def init(self, problem: FiniteHypotheses, *, key: PRNGKeyArray) -> EnumeratedFREEHANDState:
        problem.problem.require_one_task("EnumeratedFREEHAND")
        problem.problem.require_initial("EnumeratedFREEHAND")
        return EnumeratedFREEHANDState(
            jnp.ones(problem.rewards.shape[0], bool),
            jnp.ones(problem.transitions.shape[0], bool),
            jnp.full(problem.sizes, 1.0 / problem.problem.actions, jnp.float32),
            problem,
        )

    def update(self, state: EnumeratedFREEHANDState, data: EpisodeComparisons, *, key):
        given = state.hypotheses
        # The rewards of the class are the features; each member is one of the unit vectors.
        features = jnp.moveaxis(given.rewards, 0, -1)
        difference, preferred = difference_of(data, features)
        members = jnp.eye(given.rewards.shape[0])
        fit = jax.vmap(lambda one: log_likelihood(one, difference, preferred))(members)
        rewards_possible = self._near_best(fit)

        counts = count_both(no_counts(given.problem), data, given.problem)
        # Models that forbid what happened get a likelihood of zero, and no infinities.
        logs = jnp.where(given.transitions > 0.0, jnp.log(given.transitions), -1e9)
        models_possible = self._near_best(jnp.einsum("hsat,mhsat->m", counts.following, logs))

        compared_with = {
            "first": (data.first,),
            "second": (data.second,),
            "both": (data.first, data.second),
        }[self.reference_episodes]
        seen = jnp.stack([trajectory_features(episodes, features) for episodes in compared_with])
        reference = jnp.mean(seen.reshape(-1, members.shape[0]), axis=0)
        table, worst, gap = self._plan(given, rewards_possible, models_possible, reference)
        metrics = {
            "worst_case": worst,
            "gap": gap,
            "rewards_possible": jnp.sum(rewards_possible, dtype=jnp.float32),
            "models_possible": jnp.sum(models_possible, dtype=jnp.float32),
        }
        return EnumeratedFREEHANDState(rewards_possible, models_possible, table, given), metrics

    def policy(self, state: EnumeratedFREEHANDState, *, explore: bool):
        return state.table

    def _near_best(self, fit: Float[Array, " member"]) -> Bool[Array, " member"]:
        margin = jnp.log(2.0 * fit.shape[0] / self.failure_probability)
        return fit >= jnp.max(fit) - margin

    def _plan(self, given: FiniteHypotheses, rewards_possible, models_possible, reference):
        start = given.problem.require_initial("EnumeratedFREEHAND")
        nothing = jnp.zeros(given.sizes)

        def model(transition):
            return FiniteProcess(transition, nothing, start)

        def best_for(transition):
            return plan_against_rewards(
                model(transition),
                given.rewards,
                reference=reference,
                possible=rewards_possible,
                iterations=self.num_iterations,
            )

        def guaranteed(policy):
            def under(transition):
                returns = jax.vmap(
                    lambda r: expected_return(replace(model(transition), reward=r), policy)
                )(given.rewards)
                return jnp.min(jnp.where(rewards_possible, returns - reference, jnp.inf))

            each = jax.vmap(under)(given.transitions)
            return jnp.min(jnp.where(models_possible, each, jnp.inf))

        plans = jax.vmap(best_for)(given.transitions)
        worst = jnp.where(models_possible, jax.vmap(guaranteed)(plans.policy), -jnp.inf)
        best = jnp.argmax(worst)
        # No policy does better against all models than the best one does against any of them.
        ceilings = jnp.where(models_possible, plans.value + plans.gap, jnp.inf)
        gap = jnp.maximum(jnp.min(ceilings) - worst[best], 0.0)
        return plans.policy[best], worst[best], gap
