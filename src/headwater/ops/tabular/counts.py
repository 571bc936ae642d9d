"""What was seen of a finite process: counts, estimates, and what they certify."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.ops.tabular.planning import worst_expectation


class Counts(eqx.Module):
    """How often each step was taken, where it led and what it earned.

    **Arguments:** `visits`; `following`: visits by next state; `reward`, `squared_reward`: sums.
    """

    visits: Float[Array, "horizon state action"]
    following: Float[Array, "horizon state action state"]
    reward: Float[Array, "horizon state action"]
    squared_reward: Float[Array, "horizon state action"]


def no_counts(problem: FiniteProblem) -> Counts:
    """Before anything was seen."""
    zeros = jnp.zeros(problem.sizes)
    return Counts(zeros, jnp.zeros((*problem.sizes, problem.states)), zeros, zeros)


def count(counts: Counts, data: Episodes) -> Counts:
    """Adds episodes, any number of them."""
    step = jnp.broadcast_to(jnp.arange(data.action.shape[-1]), data.action.shape)
    at = step, data.state[..., :-1], data.action
    return Counts(
        counts.visits.at[at].add(1.0),
        counts.following.at[(*at, data.state[..., 1:])].add(1.0),
        counts.reward.at[at].add(data.reward),
        counts.squared_reward.at[at].add(jnp.square(data.reward)),
    )


def at_least_once(visits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What to divide by."""
    return jnp.maximum(visits, 1.0)


def mean_reward(counts: Counts) -> Float[Array, "horizon state action"]:
    """Zero where nothing was seen."""
    return counts.reward / at_least_once(counts.visits)


def estimated_reward(
    counts: Counts, problem: FiniteProblem
) -> Float[Array, "horizon state action"]:
    """The rewards themselves where they are known, else their means."""
    return mean_reward(counts) if problem.reward is None else problem.reward


def reward_variance(counts: Counts) -> Float[Array, "horizon state action"]:
    """Variance of the rewards that were seen; zero where there were none."""
    squares = counts.squared_reward / at_least_once(counts.visits)
    return jnp.maximum(squares - jnp.square(mean_reward(counts)), 0.0)


def expected_next(
    following: Float[Array, "state action state"],
    visits: Float[Array, "state action"],
    value: Float[Array, " state"],
) -> tuple[Float[Array, "state action"], Float[Array, "state action"]]:
    """Mean and variance of the next state's value under the frequencies of one step.

    Both are zero where nothing was seen. Dividing after the product saves a pass over `following`.
    """
    times = at_least_once(visits)
    # Centred first: the difference of large squares would lose the variance in single precision.
    centre = jnp.mean(value)
    around = value - centre
    moments = following @ jnp.stack([around, jnp.square(around)], axis=-1)
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
    of visits at once (Weissman et al. 2003, with a union bound); rewards are in [0, 1]. Loose, but
    it holds whatever chose the actions.

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
    if problem.reward is None:
        width = jnp.where(unseen, 1.0, jnp.sqrt(log / (2.0 * visits)))
        mean = mean_reward(counts)
        high, low = jnp.minimum(mean + width, 1.0), jnp.maximum(mean - width, 0.0)
    else:
        high = low = problem.reward
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
    return jnp.dot(problem.initial, upper - lower)
