"""Making expected vector returns fall into a convex set, by no-regret play on a known model.

What is measured of an episode is an array `[horizon, state, action, measure]`, the reward or a cost
for example; the return of a policy is the expected sum of it. A direction of measures makes an
ordinary reward, for which the model is planned with; the mixture of all these responses approaches
the set, though no single one may be in it. On a model that was explored without rewards this solves
any number of constrained problems without a new episode.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.convex import (
    AbstractConvexSet,
    distance,
    into_ball,
    into_unit_polar,
    within_budgets,
)
from headwater.ops.tabular.planning import occupancy, optimal_values

Policy = Float[Array, "horizon state action"]
Measurement = Float[Array, "horizon state action measure"]


class Approach(eqx.Module):
    """What no-regret play came to.

    **Arguments:** `policy`: in every state at every step it acts as often in each way as the
    mixture of all responses does, so it has the mixture's returns; `achieved`: these returns, in
    the model; `returns`: of each response, measured in `judge`; `planned`: whether a response was
    planned for (true) or taken from the earlier ones.
    """

    policy: Policy
    achieved: Float[Array, " measure"]
    returns: Float[Array, "round measure"]
    planned: Float[Array, " round"]

    @property
    def averages(self) -> Float[Array, "round measure"]:
        """Returns of the mixture after every round."""
        rounds = jnp.arange(1, self.returns.shape[0] + 1, dtype=self.returns.dtype)
        return jnp.cumsum(self.returns, axis=0) / rounds[:, None]


def vector_returns(
    process: FiniteProcess, measurement: Measurement, policy: Policy
) -> Float[Array, " measure"]:
    """Expected sums of every measure over an episode of `policy`, exact."""
    return jnp.einsum("hsa,hsam->m", occupancy(process, policy), measurement)


def response(process: FiniteProcess, reward: Policy) -> Policy:
    """A policy that is best in `process` with another reward."""
    return optimal_values(dataclasses.replace(process, reward=reward)).policy


def mixed_policy(visited: Policy) -> Policy:
    """The policy that visits as often as this, up to a factor; uniform where nothing is visited."""
    total = jnp.sum(visited, axis=-1, keepdims=True)
    uniform = jnp.full_like(visited, 1.0 / visited.shape[-1])
    return jnp.where(total > 0.0, visited / jnp.where(total > 0.0, total, 1.0), uniform)


@eqx.filter_jit
def approach(
    process: FiniteProcess,
    measurement: Measurement,
    target: AbstractConvexSet,
    *,
    rounds: int,
    largest: float | Float[Array, ""] = 1.0,
    judge: FiniteProcess | None = None,
) -> Approach:
    r"""Approaches a bounded set (Miryoosefi and Jin, 2022).

    $\theta_1 = 0$, $\pi_t$ is best for the reward $-\theta_t \cdot z$ and returns $V_t$, and
    $\theta_{t+1} = \Pi_{\|\theta\| \le 1}(\theta_t + \eta_t (V_t - \arg\max_{x \in C}
    \theta_t \cdot x))$ with $\eta_t = 1 / (G \sqrt t)$. The mixture's distance from the set exceeds
    the smallest possible one by $O(G / \sqrt T)$.

    **Arguments:** `rounds`: T; `largest`: G, the norm of the differences of returns and points of
    the set; `judge`: where `returns` are measured, if not in `process`.
    """

    def one(theta, time):
        policy = response(process, -measurement @ theta)
        visited = occupancy(process, policy)
        found = jnp.einsum("hsa,hsam->m", visited, measurement)
        rate = 1.0 / (largest * jnp.sqrt(time))
        theta = into_ball(theta + rate * (found - target.farthest(theta)), 1.0)
        judged = found if judge is None else vector_returns(judge, measurement, policy)
        return theta, visited, judged, jnp.ones(())

    return _play(process, measurement, one, jnp.zeros(measurement.shape[-1]), rounds)


@eqx.filter_jit
def approach_by_cone(
    process: FiniteProcess,
    measurement: Measurement,
    target: AbstractConvexSet,
    *,
    rounds: int,
    height: float | Float[Array, ""] = 20.0,
    cached: int = 0,
    judge: FiniteProcess | None = None,
) -> Approach:
    r"""Approaches any convex set through the cone over it (Miryoosefi et al., 2019).

    Returns are lifted to $(V, \kappa)$ and the set to the cone over $C \times \{\kappa\}$.
    $\lambda_1 = 0$; $\pi_t$ is best for the reward $-\lambda_t \cdot z$, and $\lambda_{t+1} =
    \Pi_\Lambda(\lambda_t + \eta_t (V_t, \kappa) / \kappa)$ with $\eta_t = 1 / \sqrt t$ and
    $\Lambda$ the polar of the cone within the unit ball. A response with $\lambda_t \cdot
    (V_t, \kappa) \le 0$ is as good as the best, so that an earlier one that has it saves planning.

    **Arguments:** `rounds`: T; `height`: κ; `cached`: how many of the last planned responses are
    kept to be tried again; `judge`: where `returns` are measured, if not in `process`.
    """
    measures = measurement.shape[-1]

    def plan(direction):
        policy = response(process, -measurement @ direction[:-1])
        visited = occupancy(process, policy)
        judged = visited if judge is None else occupancy(judge, policy)
        return visited, judged, jnp.einsum("hsa,hsam->m", visited, measurement)

    def one(carry, time):
        direction, kept, slot = carry
        if cached:
            scores = kept[2] @ direction[:-1] + direction[-1] * height
            scores = jnp.where(jnp.arange(cached) < slot, scores, jnp.inf)
            best = jnp.argmin(scores)
            planned = scores[best] > 0.0
            visited, judged, found = jax.lax.cond(
                planned,
                lambda: plan(direction),
                lambda: jax.tree.map(lambda x: x[best], kept),
            )
            at = jnp.where(planned, slot % cached, best)
            kept = jax.tree.map(
                lambda all_, new: all_.at[at].set(new), kept, (visited, judged, found)
            )
            slot += planned
        else:
            planned = jnp.ones((), bool)
            visited, judged, found = plan(direction)
        lifted = jnp.append(found, height) / height
        direction = into_unit_polar(target, direction + lifted / jnp.sqrt(time), height)
        seen = jnp.einsum("hsa,hsam->m", judged, measurement)
        return (direction, kept, slot), visited, seen, planned.astype(jnp.float32)

    empty = jnp.zeros((cached, *process.reward.shape))
    first = jnp.zeros(measures + 1), (empty, empty, jnp.zeros((cached, measures))), jnp.int32(0)
    return _play(process, measurement, one, first, rounds)


@eqx.filter_jit
def constrained_by_approach(
    process: FiniteProcess,
    costs: Measurement,
    budgets: Float[Array, " constraint"],
    *,
    highest: float | Float[Array, ""],
    rounds: int = 200,
    halvings: int = 8,
    tolerance: float | Float[Array, ""] = 0.01,
    judge: FiniteProcess | None = None,
) -> Approach:
    """The best reward within budgets, by bisection on how much reward to ask for.

    It has the answer of the linear program up to `tolerance` and compiles, but needs
    `rounds * halvings` plans. If nothing keeps to the budgets, the answer comes as near as it can.

    **Arguments:** `costs`: `[horizon, state, action, constraint]`; `highest`: a bound of returns
    and of sums of costs; `tolerance`: how far from reward and budgets a mixture may end and still
    count as having reached them; the rest as in `approach`.
    """
    measurement = jnp.concatenate([process.reward[..., None], costs], axis=-1)
    zero = jnp.zeros((), budgets.dtype)

    def ask(least):
        target = within_budgets(least, highest, budgets)
        found = approach(process, measurement, target, rounds=rounds, largest=highest, judge=judge)
        return found, distance(target, found.achieved) <= tolerance

    def halve(_, carry):
        low, high, best = carry
        middle = (low + high) / 2.0
        found, reached = ask(middle)
        best = jax.tree.map(lambda new, old: jnp.where(reached, new, old), found, best)
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle), best

    first, _ = ask(zero)
    return jax.lax.fori_loop(0, halvings, halve, (zero, zero + highest, first))[2]


def _play(process, measurement, one, first, rounds: int) -> Approach:
    def step(carry, time):
        state, total = carry
        state, visited, judged, planned = one(state, time)
        return (state, total + visited), (judged, planned)

    times = jnp.arange(1, rounds + 1, dtype=jnp.float32)
    start = first, jnp.zeros_like(process.reward)
    (_, total), (returns, planned) = jax.lax.scan(step, start, times)
    average = total / rounds
    achieved = jnp.einsum("hsa,hsam->m", average, measurement)
    return Approach(mixed_policy(total), achieved, returns, planned)
