r"""Planning against an adversary who chooses the transitions from a convex set, by no-regret play.

With $V(\pi, W)$ the return of a policy in the process with transitions $W$, a policy learner plays
$\pi_t$ and an environment learner $W_t$. If $R_\pi$ is the policy learner's regret and $R_W$ the
environment learner's, then for the uniform mixture $\bar\pi$ of the policies

$$\min_W V(\bar\pi, W) \ge \max_\pi \min_W V(\pi, W) - (R_\pi + R_W) / T,$$

whatever the shape of the set. What does not follow is that gradient steps keep $R_\pi$ low: the
sum of $V(\pi, W_t)$ over several transitions has local maxima in $\pi$ that are not its best,
although a single term has none. So regret is measured and not assumed: no policy is worth more in
the worst case than the best one is in any $W_t$.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.planning import occupancy, optimal_values, policy_values


class AbstractUncertainty(eqx.Module):
    """A convex set of transitions, and how an environment learner moves in it."""

    @abc.abstractmethod
    def begin(self) -> Any:
        """Where the learner starts."""

    @abc.abstractmethod
    def transition(self, place: Any) -> Float[Array, "horizon state action state"]:
        """The transitions at a place of the set."""

    @abc.abstractmethod
    def respond(
        self,
        place: Any,
        process: FiniteProcess,
        policy: Float[Array, "horizon state action"],
        rate: Float[Array, ""],
    ) -> Any:
        """The learner's next place, against `policy`.

        **Arguments:** `process`: of the rewards and the first states; `rate`: of a gradient step.
        """


class RowBalls(AbstractUncertainty):
    """Every row within a total variation distance of its nominal one, independently of the others.

    The learner responds with the worst transitions for the policy at hand, which are known exactly,
    so that it has no regret.

    **Arguments:** `nominal`; `radius`: half of the L1 distance, at least zero.
    """

    nominal: Float[Array, "horizon state action state"]
    radius: Float[Array, "horizon state action"]

    def begin(self) -> Float[Array, "horizon state action state"]:
        return self.nominal

    def transition(self, place: Any) -> Float[Array, "horizon state action state"]:
        return place

    def respond(self, place: Any, process: FiniteProcess, policy: Any, rate: Any) -> Any:
        return worst_transition(process.reward, policy, self)


class Directions(AbstractUncertainty):
    r"""Rows that move together: $W_0 + \sum_j \xi_j D_j$ with $\lVert\xi\rVert_2 \le$ `length`.

    Such sets are not rectangular: no backward induction finds the worst, and the learner follows
    the projected gradient in $\xi$. Nothing here checks that all of these are distributions.

    **Arguments:** `nominal`; `directions`: whose rows add up to zero; `length`.
    """

    nominal: Float[Array, "horizon state action state"]
    directions: Float[Array, "direction horizon state action state"]
    length: Float[Array, ""]

    def begin(self) -> Float[Array, " direction"]:
        return jnp.zeros(self.directions.shape[0])

    def transition(self, place: Any) -> Float[Array, "horizon state action state"]:
        return self.nominal + jnp.tensordot(place, self.directions, axes=1)

    def respond(self, place: Any, process: FiniteProcess, policy: Any, rate: Any) -> Any:
        played = _with(process, self.transition(place))
        visited, after = occupancy(played, policy), policy_values(played, policy).value[1:]
        slope = jnp.einsum("hsa,ht,jhsat->j", visited, after, self.directions)
        moved = place - rate * slope
        return moved * jnp.minimum(self.length / jnp.maximum(jnp.linalg.norm(moved), 1e-12), 1.0)


class Dynamics(eqx.Module):
    """What the two learners played, and what it was worth.

    **Arguments:** `policies`; `places`: of the uncertainty set; `value`: of each policy in the
    transitions that it met; `best`: of the best policy in these transitions, none of which falls
    below what the best policy is worth in the worst case.
    """

    policies: Float[Array, "iteration horizon state action"]
    places: Any
    value: Float[Array, " iteration"]
    best: Float[Array, " iteration"]


def no_regret_dynamics(
    process: FiniteProcess,
    uncertainty: AbstractUncertainty,
    *,
    iterations: int,
    policy_rate: float | Float[Array, ""],
    environment_rate: float | Float[Array, ""],
) -> Dynamics:
    r"""Lets the environment respond to the policy, and the policy follow its gradient, in turn.

    The policy starts uniform and takes
    $\pi \leftarrow \mathrm{Proj}(\pi + \text{rate}\,t^{-1/2}\,d^{\pi, W}(s)\,Q^{\pi, W}(s, a))$.

    **Arguments:** `process`: of the rewards and the first states, whose own transitions do not
    matter; `policy_rate`, `environment_rate`: of the steps, for rewards of about one.
    """

    def one(carry, iteration):
        policy, place = carry
        shrunk = 1.0 / jnp.sqrt(iteration + 1.0)
        place = uncertainty.respond(place, process, policy, environment_rate * shrunk)
        met = _with(process, uncertainty.transition(place))
        found = policy_values(met, policy)
        worth = jnp.dot(process.initial, found.value[0])
        best = jnp.dot(process.initial, optimal_values(met).value[0])
        visited = jnp.sum(occupancy(met, policy), axis=-1, keepdims=True)
        moved = into_simplex(policy + policy_rate * shrunk * visited * found.action_value)
        return (moved, place), (policy, place, worth, best)

    start = jnp.full_like(process.reward, 1.0 / process.actions), uncertainty.begin()
    played = jax.lax.scan(one, start, jnp.arange(iterations, dtype=jnp.float32))[1]
    return Dynamics(*played)


def worst_transition(
    reward: Float[Array, "horizon state action"],
    policy: Float[Array, "horizon state action"],
    uncertainty: RowBalls,
) -> Float[Array, "horizon state action state"]:
    """The transitions of the set in which `policy` earns least, exact."""

    def one(following, step):
        rows, radius, reward, probabilities = step
        worst = worst_rows(rows, following, radius)
        value = jnp.sum(probabilities * (reward + worst @ following), axis=-1)
        return value, worst

    steps = uncertainty.nominal, uncertainty.radius, reward, policy
    return jax.lax.scan(one, jnp.zeros(reward.shape[1]), steps, reverse=True)[1]


def worst_rows(
    transition: Float[Array, "state action state"],
    following: Float[Array, " state"],
    radius: Float[Array, "state action"],
) -> Float[Array, "state action state"]:
    """The rows whose expectations of `following` are those of `planning.worst_expectation`."""
    order = jnp.argsort(following, descending=True)
    mass = transition[:, :, order]
    before = jnp.cumsum(mass, axis=-1) - mass
    moved = jnp.clip(radius[:, :, None] - before, 0.0, mass)
    left = (mass - moved).at[:, :, -1].add(jnp.sum(moved, axis=-1))
    return left[:, :, jnp.argsort(order)]


def into_simplex(points: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The distribution nearest to each vector along the last axis, in Euclidean distance."""
    # Of numbers that are near each other, so that single precision keeps their differences.
    points = points - jnp.max(points, axis=-1, keepdims=True)
    descending = jnp.flip(jnp.sort(points, axis=-1), axis=-1)
    count = jnp.cumsum(jnp.ones_like(points), axis=-1)
    excess = (jnp.cumsum(descending, axis=-1) - 1.0) / count
    kept = jnp.sum(descending > excess, axis=-1, keepdims=True)
    level = jnp.take_along_axis(excess, kept - 1, axis=-1)
    return jnp.maximum(points - level, 0.0)


def _with(process: FiniteProcess, transition: Any) -> FiniteProcess:
    return FiniteProcess(transition, process.reward, process.initial)
