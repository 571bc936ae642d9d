"""What was seen of a finite process: counts, estimates, and what they certify."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import EpisodeComparisons, Episodes
from headwater.ops.sums import CompensatedSum, add_to, no_sum
from headwater.ops.tabular.planning import worst_expectation


class Counts(eqx.Module):
    """How often each step was taken, where it led and what it earned.

    Counts are whole numbers of 32 bits: floats of as many would stop at 2^24.

    **Arguments:** `visits`; `following`: visits by next state; `reward`: sums of rewards, rescaled
    to [0, 1] (`FiniteProblem.in_unit`), and of their squares.
    """

    visits: Int[Array, "horizon state action"]
    following: Int[Array, "horizon state action state"]
    reward: CompensatedSum


def no_counts(problem: FiniteProblem) -> Counts:
    """Before anything was seen."""
    zeros = lambda *more: jnp.zeros((*problem.sizes, *more), jnp.int32)
    return Counts(zeros(), zeros(problem.states), no_sum((*problem.sizes, 2)))


def count(counts: Counts, data: Episodes, problem: FiniteProblem) -> Counts:
    """Adds episodes of `problem`, any number of them."""
    state, action, reward = (jnp.asarray(x) for x in (data.state, data.action, data.reward))
    step = jnp.broadcast_to(jnp.arange(action.shape[-1]), action.shape)
    return count_at(counts, step, state[..., :-1], action, reward, state[..., 1:], problem)


def count_both(counts: Counts, data: EpisodeComparisons, problem: FiniteProblem) -> Counts:
    """Adds both episodes of each comparison."""
    return count(count(counts, data.first, problem), data.second, problem)


def count_at(
    counts: Counts,
    step: Int[Array, "*batch step"],
    state: Int[Array, "*batch step"],
    action: Int[Array, "*batch step"],
    reward: Float[Array, "*batch step"],
    following: Int[Array, "*batch step"],
    problem: FiniteProblem,
) -> Counts:
    """Adds steps; those along the last axis must be of different steps of the horizon."""
    at = step, state, action
    reward = problem.in_unit(reward)
    return Counts(
        counts.visits.at[at].add(1),
        counts.following.at[(*at, following)].add(1),
        add_to(counts.reward, at, jnp.stack([reward, jnp.square(reward)], axis=-1)),
    )


def at_least_once(visits: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What to divide by."""
    return jnp.maximum(visits, 1).astype(jnp.float32)


def mean_unit_reward(counts: Counts) -> Float[Array, "horizon state action"]:
    """Of rewards rescaled to [0, 1]; zero where nothing was seen."""
    return counts.reward.total[..., 0] / at_least_once(counts.visits)


def mean_reward(counts: Counts, problem: FiniteProblem) -> Float[Array, "horizon state action"]:
    """In the units of the rewards; the lowest one where nothing was seen."""
    return problem.from_unit(mean_unit_reward(counts), 1)


def estimated_unit_reward(
    counts: Counts, problem: FiniteProblem
) -> Float[Array, "horizon state action"]:
    """The rewards themselves where they are known, else their means; rescaled to [0, 1]."""
    known = problem.unit_reward
    return mean_unit_reward(counts) if known is None else known


def reward_variance(counts: Counts) -> Float[Array, "horizon state action"]:
    """Variance of the rewards that were seen, rescaled to [0, 1]; zero where there were none."""
    squares = counts.reward.total[..., 1] / at_least_once(counts.visits)
    return jnp.maximum(squares - jnp.square(mean_unit_reward(counts)), 0.0)


def expected_next(
    following: Shaped[Array, "state action state"],
    visits: Shaped[Array, "state action"],
    value: Float[Array, " state"],
) -> tuple[Float[Array, "state action"], Float[Array, "state action"]]:
    """Mean and variance of the next state's value under the frequencies of one step.

    Both are zero where nothing was seen. Dividing after the product saves a pass over `following`.
    """
    times = at_least_once(visits)
    # Centred first: the difference of large squares would lose the variance in single precision.
    centre = jnp.mean(value)
    around = value - centre
    moments = following.astype(jnp.float32) @ jnp.stack([around, jnp.square(around)], axis=-1)
    mean = moments[..., 0] / times
    variance = jnp.maximum(moments[..., 1] / times - jnp.square(mean), 0.0)
    seen = visits > 0.0
    return jnp.where(seen, mean + centre, 0.0), jnp.where(seen, variance, 0.0)


def estimated_transition(counts: Counts) -> Float[Array, "horizon state action state"]:
    """Frequencies of next states; uniform where nothing was seen."""
    visits = counts.visits[..., None]
    uniform = 1.0 / counts.following.shape[-1]
    return jnp.where(visits > 0.0, counts.following / at_least_once(visits), uniform)


def certified_gap(
    counts: Counts,
    policy: Float[Array, "horizon state action"],
    problem: FiniteProblem,
    failure_probability: float | Float[Array, ""],
) -> Float[Array, ""]:
    """How much `policy` falls short of the best one at most, with high probability.

    The best return in any model near the counts, less the policy's return in the worst such model.
    Near means within an L1 distance of the frequencies that holds for all rows and for every number
    of visits at once (Weissman et al. 2003, with a union bound). Loose, but it holds whatever chose
    the actions, if rewards lie in the range that the problem declares. In the units of the rewards,
    never negative, and never more than an episode's returns can differ.

    Raises `SpecificationError` if the initial distribution is not known.
    """
    if problem.initial is None:
        raise SpecificationError("a bound needs to know where episodes start: give `initial`")
    visits = at_least_once(counts.visits)
    states = problem.states
    rows = problem.horizon * states * problem.actions
    # Three ways to be wrong (a distance, a reward too high or too low) for each number of visits n;
    # one over n² adds up to π²/6 over all n, and 3 · π²/6 < 5.
    log = jnp.log(rows * jnp.square(visits) * 5.0 / failure_probability)
    distance = jnp.sqrt(2.0 * (states * jnp.log(2.0) + log) / visits)
    unseen = counts.visits == 0.0
    radius = jnp.where(unseen, 1.0, jnp.minimum(distance / 2.0, 1.0))
    if problem.unit_reward is None:
        width = jnp.where(unseen, 1.0, jnp.sqrt(log / (2.0 * visits)))
        mean = mean_unit_reward(counts)
        high, low = jnp.minimum(mean + width, 1.0), jnp.maximum(mean - width, 0.0)
    else:
        high = low = problem.unit_reward
    transition = estimated_transition(counts)

    def one(following, step):
        upper, lower = following
        rows, radius, high, low, probabilities = step
        best = high - worst_expectation(rows, -upper, radius)
        worst = low + worst_expectation(rows, lower, radius)
        return (jnp.max(best, axis=-1), jnp.sum(probabilities * worst, axis=-1)), None

    zero = jnp.zeros(states)
    upper, lower = jax.lax.scan(
        one, (zero, zero), (transition, radius, high, low, policy), reverse=True
    )[0]
    gap = jnp.dot(problem.initial, upper - lower)
    # Rewards outside of the declared range void what is promised: it is then no number.
    mean = mean_unit_reward(counts)
    gap = jnp.where(jnp.all((mean > -1e-3) & (mean < 1.001)), gap, jnp.nan)
    return problem.reward_scale * jnp.clip(gap, 0.0, problem.horizon)
