"""Pessimistic planning from logged comparisons, with a linear reward."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import EpisodeComparisons
from headwater.ops.linear.pessimistic_planning import plan_against_ellipsoid
from headwater.ops.linear.preference import (
    difference_of,
    feature_map,
    information,
    most_likely,
    trajectory_features,
)
from headwater.ops.tabular.counts import at_least_once, count_both, estimated_transition, no_counts


class FREEHANDState(eqx.Module):
    """The estimated reward, and the policy that is best in the worst case."""

    weights: Float[Array, " feature"]
    table: Float[Array, "horizon state action"]
    transition: Float[Array, "horizon state action state"]
    model_known: Bool[Array, ""]
    problem: FiniteProblem


class FREEHAND(
    AbstractMethod[FiniteProblem, EpisodeComparisons, FREEHANDState],
    AbstractTablePolicy[FREEHANDState],
):
    r"""The best policy for the worst reward that logged comparisons leave possible; linear rewards.

    The **linear relaxation** of the method, whose set of rewards is an ellipsoid:
    `EnumeratedFREEHAND` has the paper's own sets. With $\hat\theta$ the most likely weights, Λ the
    information in the comparisons (minus the Hessian there) plus λI, and $\phi_{ref}$ the mean
    features of logged episodes,

    $$\hat\pi = \arg\max_\pi \min_{\|\theta - \hat\theta\|_\Lambda \le \beta}
    \langle\phi(\pi) - \phi_{ref}, \theta\rangle = \arg\max_\pi
    \langle\phi(\pi) - \phi_{ref}, \hat\theta\rangle - \beta
    \|\phi(\pi) - \phi_{ref}\|_{\Lambda^{-1}}.$$

    This is concave in the occupancy of the policy, so that the maximum over all randomised policies
    is found, with a bound on what is missing (the metric `gap`): no list of candidates. Without the
    reference the penalty would depend on a shift of the reward that comparisons cannot show. A
    batch is the whole log; every update starts afresh.

    **Arguments:**

    - `confidence_radius`: β. Zero plans for the estimate; about $\sqrt{d}$ covers the truth.
    - `ridge`: λ, also of the estimate.
    - `transition_penalty`: c in $c/\sqrt{\max(N_h(s,a), 1)}$, taken off the reward of every step
      where the model is estimated from the log; nothing where it is known (`init_with_model`).
    - `reference_episodes`: whose mean features are compared with: the first episodes of the pairs,
      the second, or both. Take the better ones; what lies far from them is doubted.
    - `num_iterations`: plans to make at most, and policies that the answer can mix.

    **Reference:** Zhan, Uehara, Kallus, Lee, Sun (2023), arXiv:2305.14816.

    **Differences from the paper:** the ellipsoid in place of the likelihood's level set; an unknown
    model is doubted by a penalty in place of the minimum over a set of models.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "zhan2024offline",
        summary="plans for the worst linear reward that logged comparisons leave possible",
    )

    confidence_radius: float = non_negative(2.0)
    ridge: float = positive(1.0)
    transition_penalty: float = non_negative(1.0)
    reference_episodes: Literal["first", "second", "both"] = choice("first")
    num_iterations: int = integer(100)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> FREEHANDState:
        return self._begin(problem, estimated_transition(no_counts(problem)), False)

    def init_with_model(
        self, problem: FiniteProblem, transition: Float[Array, "horizon state action state"]
    ) -> FREEHANDState:
        """The state where the model is known. For `Stage.begin`."""
        return self._begin(problem, transition, True)

    def update(self, state: FREEHANDState, data: EpisodeComparisons, *, key: PRNGKeyArray):
        problem, features = state.problem, feature_map(state.problem)
        difference, preferred = difference_of(data, features)
        weights = most_likely(difference, preferred, ridge=self.ridge)
        precision = information(weights, difference) + self.ridge * jnp.eye(weights.shape[0])

        counts = count_both(no_counts(problem), data, problem)
        penalty = self.transition_penalty / jnp.sqrt(at_least_once(counts.visits))
        known = state.model_known
        transition = jnp.where(known, state.transition, estimated_transition(counts))
        start = problem.require_initial("FREEHAND")
        model = FiniteProcess(transition, jnp.where(known, 0.0, -penalty), start)

        compared_with = {
            "first": (data.first,),
            "second": (data.second,),
            "both": (data.first, data.second),
        }[self.reference_episodes]
        seen = [trajectory_features(episodes, features) for episodes in compared_with]
        plan = plan_against_ellipsoid(
            model,
            features,
            weights=weights,
            precision=precision,
            width=self.confidence_radius,
            reference=jnp.mean(jnp.stack(seen).reshape(-1, weights.shape[0]), axis=0),
            iterations=self.num_iterations,
        )
        metrics = {"worst_case": plan.value, "gap": plan.gap}
        return FREEHANDState(weights, plan.policy, transition, known, problem), metrics

    def policy(self, state: FREEHANDState, *, explore: bool):
        return state.table

    def _begin(self, problem: FiniteProblem, transition: Array, known: bool) -> FREEHANDState:
        problem.require_one_task("FREEHAND")
        problem.require_initial("FREEHAND")
        size = feature_map(problem).shape[-1]
        table = jnp.full(problem.sizes, 1.0 / problem.actions, jnp.float32)
        return FREEHANDState(jnp.zeros(size), table, transition, jnp.asarray(known), problem)
