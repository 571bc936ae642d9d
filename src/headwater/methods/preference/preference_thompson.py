"""Thompson sampling from preferences, with questions only where they are worth it."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import EpisodeComparisons
from headwater.ops.linear.preference import feature_map, information, most_likely
from headwater.ops.linear_algebra import cholesky, triangular_solve
from headwater.ops.tabular.counts import Counts
from headwater.ops.tabular.planning import optimal_values
from headwater.parts.preference_learning import (
    PreferenceLearning,
    ask,
    begin_comparing,
    next_pair,
)


class PbTS(
    AbstractMethod[FiniteProblem, EpisodeComparisons, PreferenceLearning],
    AbstractTablePolicy[PreferenceLearning],
):
    r"""Plans for a reward and a model drawn from posteriors; asks when the answer can matter.

    After every episode pair: draw $\theta \sim N(\hat\theta, \Lambda^{-1})$, the Laplace
    approximation with $\hat\theta$ the maximum of the posterior and Λ its information, and a model
    with rows $\mathrm{Dirichlet}(\alpha + N_h(s, a, \cdot))$; plan for them exactly; compare the
    new policy with the previous one. A judge is asked about a pair of episodes only if two rewards
    from the posterior disagree about it by more than ε on average,

    $$E_{\theta, \theta'} |\langle\phi(\tau^0) - \phi(\tau^1), \theta - \theta'\rangle| =
    (2/\sqrt\pi) \|\phi(\tau^0) - \phi(\tau^1)\|_{\Lambda^{-1}} > \epsilon.$$

    Answers that were not asked for are in the data, since a compiled step has a fixed shape, and
    are not looked at; the metric `queries` counts those that were.

    **Arguments:**

    - `query_threshold`: ε, in units of the reward. Zero asks whenever the two episodes differ.
    - `prior_precision`: of the weights, whose prior is $N(0, I / \text{precision})$.
    - `prior_count`: α, of every next state.
    - `sampling_scale`: how far the draws are from the posteriors' means, as a share: one is the
      method, zero plans for the means (greedy).
    - `query_budget`: most answers that are ever asked for; it sets the memory.
    - `num_newton_steps`: of the estimate in every update, from the last one on.

    **Reference:** Wu, Sun (2023), arXiv:2310.14554.

    **Differences from the paper:** the posteriors, which it leaves to oracles: Laplace and
    Dirichlet; a budget of questions.
    """

    feed: ClassVar[Feed] = Feed.JUDGED
    info: ClassVar[Info] = Info(
        "wu2024making",
        summary="Thompson sampling from preferences that asks only where answers matter",
    )

    query_threshold: float = non_negative(0.25)
    prior_precision: float = positive(1.0)
    prior_count: float = positive(1.0)
    sampling_scale: float = non_negative(1.0)
    query_budget: int = integer(1000, low=0)
    num_newton_steps: int = integer(5, low=0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> PreferenceLearning:
        problem.require_one_task("PbTS")
        return begin_comparing(
            problem,
            size=feature_map(problem).shape[-1],
            query_budget=self.query_budget,
            prior_precision=self.prior_precision,
            draw=self._draw,
            plan=self._plan,
            key=key,
        )

    def update(self, state: PreferenceLearning, data: EpisodeComparisons, *, key: PRNGKeyArray):
        features = feature_map(state.problem)
        counts, answers, metrics = ask(
            state, data, features, noise=1.0, threshold=self.query_threshold
        )
        weights = most_likely(
            answers.difference,
            answers.first_preferred,
            answers.queried,
            ridge=self.prior_precision,
            start=state.weights,
            steps=self.num_newton_steps,
        )
        seen = information(weights, answers.difference, answers.queried)
        precision = seen + self.prior_precision * jnp.eye(weights.shape[0])
        known = counts, answers, weights, precision
        return next_pair(state, *known, draw=self._draw, plan=self._plan, key=key), metrics

    def policy(self, state: PreferenceLearning, *, explore: bool):
        return state.pair if explore else state.table

    def _mean_model(self, counts: Counts) -> Float[Array, "horizon state action state"]:
        weight = counts.following + self.prior_count
        return weight / jnp.sum(weight, axis=-1, keepdims=True)

    def _plan(self, problem: FiniteProblem, counts: Counts, weights):
        return self._policy_for(problem, self._mean_model(counts), weights)

    def _draw(self, problem, counts, weights, precision, key):
        """What is best for a reward and a model from the posteriors."""
        reward_key, model_key = jax.random.split(key)
        noise = jax.random.normal(reward_key, weights.shape)
        root = cholesky(precision)
        away = triangular_solve(root, noise, transposed=True)
        model = jax.random.dirichlet(model_key, counts.following + self.prior_count)
        mean = self._mean_model(counts)
        drawn = mean + self.sampling_scale * (model - mean)
        return self._policy_for(problem, drawn, weights + self.sampling_scale * away)

    def _policy_for(self, problem: FiniteProblem, transition, weights):
        # Where episodes start does not change what is best in a state.
        anywhere = jnp.full(problem.states, 1.0 / problem.states)
        reward = feature_map(problem) @ weights
        return optimal_values(FiniteProcess(transition, reward, anywhere)).policy
