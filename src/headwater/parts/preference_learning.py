"""What methods that compare two episodes at a time share: their state, and when they ask."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.finite import FiniteProblem
from headwater.core.method import Metrics
from headwater.core.records import EpisodeComparisons
from headwater.ops.linear.preference import (
    Answers,
    FeatureMap,
    add_answers,
    difference_of,
    expected_disagreement,
    no_answers,
)
from headwater.ops.tabular.counts import Counts, count_both, no_counts

Number = float | Float[Array, ""]
Policy = Float[Array, "horizon state action"]
Draw = Callable[[FiniteProblem, Counts, Array, Array, PRNGKeyArray], Policy]
"""The policy for a reward and a model drawn from what counts, weights and precision leave open."""
Plan = Callable[[FiniteProblem, Counts, Array], Policy]
"""The policy for the model and the reward that counts and weights make likeliest."""


class PreferenceLearning(eqx.Module):
    """What was seen and answered, and the policies to compare: the newest and the one before.

    **Arguments:** `weights`, `precision`: of the reward, and how sure they are; `table`: the policy
    to be judged by.
    """

    counts: Counts
    answers: Answers
    weights: Float[Array, " feature"]
    precision: Float[Array, "feature feature"]
    table: Policy
    pair: Float[Array, "2 horizon state action"]
    problem: FiniteProblem


def begin_comparing(
    problem: FiniteProblem,
    *,
    size: int,
    query_budget: int,
    prior_precision: Number,
    draw: Draw,
    plan: Plan,
    key: PRNGKeyArray,
) -> PreferenceLearning:
    """The state before any data, with two policies drawn. `size`: how many weights there are."""
    counts, weights = no_counts(problem), jnp.zeros(size)
    precision = prior_precision * jnp.eye(size)
    pair = [draw(problem, counts, weights, precision, each) for each in jax.random.split(key)]
    table = plan(problem, counts, weights)
    answers = no_answers(query_budget, size)
    return PreferenceLearning(counts, answers, weights, precision, table, jnp.stack(pair), problem)


def ask(
    state: PreferenceLearning,
    data: EpisodeComparisons,
    features: FeatureMap,
    *,
    noise: Number,
    threshold: Number,
) -> tuple[Counts, Answers, Metrics]:
    """What is known once the comparisons were asked about on which draws disagree enough.

    **Arguments:** `noise`: how much wider than the posterior draws are; `threshold`: expected
    disagreement above which an answer is asked for.
    """
    difference, preferred = difference_of(data, features)
    disagreement = expected_disagreement(difference, state.precision, noise)
    answers = add_answers(state.answers, difference, preferred, disagreement > threshold)
    counts = count_both(state.counts, data, state.problem)
    metrics = {
        "queries": answers.count.astype(jnp.float32),
        "disagreement": jnp.mean(disagreement),
    }
    return counts, answers, metrics


def next_pair(
    state: PreferenceLearning,
    counts: Counts,
    answers: Answers,
    weights: Float[Array, " feature"],
    precision: Float[Array, "feature feature"],
    *,
    draw: Draw,
    plan: Plan,
    key: PRNGKeyArray,
) -> PreferenceLearning:
    """The state with what was learned, and a new policy to compare with the last one."""
    problem = state.problem
    newest = draw(problem, counts, weights, precision, key)
    table = plan(problem, counts, weights)
    pair = jnp.stack([newest, state.pair[0]])
    return PreferenceLearning(counts, answers, weights, precision, table, pair, problem)
