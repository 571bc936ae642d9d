"""Explore first, ask about the most informative pairs of policies later."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import EpisodeComparisons
from headwater.ops.linear.preference import (
    difference_of,
    feature_map,
    informative_pairs,
    log_likelihood,
    most_likely,
)
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    count_both,
    estimated_transition,
    no_counts,
)
from headwater.ops.tabular.planning import occupancy, optimal_values


class REGIMEState(eqx.Module):
    """The model, the pairs of policies to play next, and what the answers said."""

    counts: Counts
    transition: Float[Array, "horizon state action state"]
    pairs: Float[Array, "comparison 2 horizon state action"]
    uncertainty: Float[Array, ""]
    weights: Float[Array, " feature"]
    table: Float[Array, "horizon state action"]
    rounds: Int[Array, ""]
    queries: Float[Array, ""]
    problem: FiniteProblem


class REGIME(
    AbstractMethod[FiniteProblem, EpisodeComparisons, REGIMEState],
    AbstractTablePolicy[REGIMEState],
):
    r"""Learns the model without asking, designs all comparisons, asks once, and plans.

    1. For `num_exploration_updates` updates no answer is looked at: episodes go where little is
    known, which
       gives $\hat P$.
    2. $\Sigma_1 = \lambda I$; for every comparison $(\pi^0_n, \pi^1_n) = \arg\max
       \|\hat\phi(\pi^0) - \hat\phi(\pi^1)\|_{\Sigma_n^{-1}}$, and $\Sigma_{n+1} = \Sigma_n +
       \Delta_n \Delta_n^\top$ with $\Delta_n = \hat\phi(\pi^0_n) - \hat\phi(\pi^1_n)$.
    3. One update with an episode of every policy and the answers: $\hat\theta$ maximises
       $\sum_n \ln P_\theta(o_n)$ on the features of the episodes, subject to $\|\theta\| \le B$,
       and $\hat\pi = \arg\max_\pi \langle\hat\phi(\pi), \hat\theta\rangle$ is planned exactly.
       Later updates change nothing.

    The search for a pair maximises a convex function, so that it finds a local maximum:
    `ops.preference.informative_pairs`.

    **Arguments:**

    - `num_comparisons`: N, pairs in every update, and answers asked for.
    - `num_exploration_updates`: updates before the design. Use `init_with_model` where the model is
      known.
    - `design_ridge`: λ.
    - `norm_bound`: B, at least the norm of the true weights; much more makes the estimate poor.
    - `ridge`: of the estimate, for directions that no comparison shows.
    - `num_restarts`: directions from which a pair is sought.

    **Reference:** Zhan, Uehara, Sun, Lee (2023), arXiv:2305.18505.

    **Differences from the paper:** the reward-free oracle is planning for $1/\sqrt N$ in the
    empirical model, with the visits that are expected of one policy counted before the next is
    planned; both policies of an exploring pair are the same; the design's maximum is local.
    """

    feed: ClassVar[Feed] = Feed.JUDGED
    info: ClassVar[Info] = Info(
        "zhan2024provable",
        summary="explores without asking, then compares policies by experimental design",
    )

    num_comparisons: int = integer(100)
    num_exploration_updates: int = integer(3, low=0, static=False)
    design_ridge: float = non_negative(1.0)
    norm_bound: float = non_negative(10.0)
    ridge: float = positive(0.1)
    num_restarts: int = integer(4, low=0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> REGIMEState:
        problem.require_one_task("REGIME")
        counts = no_counts(problem)
        return self._begin(problem, counts, estimated_transition(counts), 0, key)

    def init_with_model(
        self,
        problem: FiniteProblem,
        transition: Float[Array, "horizon state action state"],
        *,
        key: PRNGKeyArray,
    ) -> REGIMEState:
        """The state where the model is known: the first update asks. For `Stage.begin`."""
        problem.require_one_task("REGIME")
        return self._begin(
            problem, no_counts(problem), transition, self.num_exploration_updates, key
        )

    def update(self, state: REGIMEState, data: EpisodeComparisons, *, key: PRNGKeyArray):
        features = feature_map(state.problem)
        difference, preferred = difference_of(data, features)
        exploring, asking = (
            state.rounds < self.num_exploration_updates,
            state.rounds == self.num_exploration_updates,
        )
        seen = count_both(state.counts, data, state.problem)
        counts = jax.tree.map(lambda new, old: jnp.where(exploring, new, old), seen, state.counts)
        transition = jnp.where(exploring, estimated_transition(counts), state.transition)
        rounds = jnp.minimum(state.rounds + 1, self.num_exploration_updates + 1).astype(jnp.int32)

        def look_at_answers():
            weights = most_likely(
                difference, preferred, ridge=self.ridge, norm_bound=self.norm_bound
            )
            return weights, optimal_values(self._model(state, features @ weights)).policy

        def look_away():
            return state.weights, state.table

        pairs, uncertainty = jax.lax.cond(
            exploring,
            lambda: self._plan(state.problem, counts, transition, rounds, key),
            lambda: (state.pairs, state.uncertainty),
        )
        weights, table = jax.lax.cond(asking, look_at_answers, look_away)
        queries = state.queries + jnp.where(asking, preferred.size, 0.0)
        fit = jnp.where(asking, log_likelihood(weights, difference, preferred), 0.0)
        metrics = {
            "queries": queries,
            "uncertainty": uncertainty,
            "log_likelihood": fit / preferred.size,
        }
        new = REGIMEState(
            counts, transition, pairs, uncertainty, weights, table, rounds, queries, state.problem
        )
        return new, metrics

    def policy(self, state: REGIMEState, *, explore: bool):
        return state.pairs if explore else state.table

    def _begin(self, problem, counts, transition, rounds, key) -> REGIMEState:
        problem.require_initial("REGIME")
        done = jnp.asarray(rounds, jnp.int32)
        pairs, uncertainty = self._plan(problem, counts, transition, done, key)
        weights = jnp.zeros(feature_map(problem).shape[-1])
        table = jnp.full(problem.sizes, 1.0 / problem.actions, jnp.float32)
        queries = jnp.zeros(())
        return REGIMEState(
            counts, transition, pairs, uncertainty, weights, table, done, queries, problem
        )

    def _model(self, state: REGIMEState, reward: Float[Array, "horizon state action"]):
        start = state.problem.require_initial("REGIME")
        return FiniteProcess(state.transition, reward, start)

    def _plan(self, problem, counts, transition, rounds, key):
        """The pairs to play next, and the norm of the last: zero unless they are for asking."""
        model = FiniteProcess(
            transition, jnp.zeros(problem.sizes), problem.require_initial("REGIME")
        )
        return jax.lax.cond(
            rounds < self.num_exploration_updates,
            lambda: (self._explore(model, counts.visits.astype(jnp.float32)), jnp.zeros(())),
            lambda: informative_pairs(
                model,
                feature_map(problem),
                self.num_comparisons,
                ridge=self.design_ridge,
                restarts=self.num_restarts,
                key=key,
            ),
        )

    def _explore(self, model: FiniteProcess, visits: Float[Array, "horizon state action"]):
        def one(visits, _):
            bonus = 1.0 / jnp.sqrt(at_least_once(visits))
            policy = optimal_values(FiniteProcess(model.transition, bonus, model.initial)).policy
            return visits + 2.0 * occupancy(model, policy), jnp.stack([policy, policy])

        return jax.lax.scan(one, visits, length=self.num_comparisons)[1]
