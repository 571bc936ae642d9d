"""What policies of games are worth against opponents who know them."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.approachability import vector_returns
from headwater.ops.tabular.convex import AbstractConvexSet, into_ball
from headwater.ops.tabular.games import (
    joint_policy,
    secured_return,
    solve_game,
    worst_reply,
)


class PlannedGame(NamedTuple):
    """How well a game was planned for in a model of it.

    **Arguments:** `value`: of the game; `promised`: its value in the model; `secured`: what the
    policy planned in the model earns in the game against whoever knows it; `rounding`: how far the
    planner may be off, in the game and in the model.
    """

    value: Float[Array, ""]
    promised: Float[Array, ""]
    secured: Float[Array, ""]
    rounding: Float[Array, ""]


def planned_game(game: FiniteProcess, model: FiniteProcess, replies: int) -> PlannedGame:
    """Plans in `model` for the rewards of `game`, and plays that against the worst reply there."""
    model = dataclasses.replace(model, reward=game.reward)
    exact, planned = solve_game(game, replies), solve_game(model, replies)

    def ends(plan, process):
        low = jnp.dot(process.initial, plan.secured[0])
        return low, jnp.dot(process.initial, plan.conceded[0])

    (low, high), (least, most) = ends(exact, game), ends(planned, model)
    return PlannedGame(
        (low + high) / 2.0,
        (least + most) / 2.0,
        secured_return(game, planned.own, replies),
        jnp.maximum(high - low, most - least) / 2.0,
    )


@eqx.filter_jit
def approach_in_game(
    game: FiniteProcess,
    model: FiniteProcess,
    replies: int,
    measurement: Float[Array, "horizon state action measure"],
    target: AbstractConvexSet,
    *,
    rounds: int,
    largest: float | Float[Array, ""],
    iterations: int = 300,
) -> Float[Array, "round measure"]:
    r"""Average returns after every round of approaching a set against an opponent.

    $\theta_1 = 0$; $\mu_t$ is planned in the model for the game of the reward $-\theta_t \cdot z$,
    and $\theta_{t+1} = \Pi_{\|\theta\| \le 1}(\theta_t + \eta_t (V_t - \arg\max_{x \in C}
    \theta_t \cdot x))$ with $\eta_t = 1 / (G \sqrt t)$, where $V_t$ are the returns of the round.
    The opponent knows $\mu_t$, and replies so that the returns lie as far as can be in the
    direction in which the average is away from the set.

    **Arguments:** `game`: where it is played; `model`: where it is planned; `measurement`: what is
    returned, as in `ops.tabular.approachability`; `target`: C; `largest`: G, the norm of the
    differences of returns and points of the set; `iterations`: of planning.
    """

    def one(carry, time):
        theta, average = carry
        wanted = dataclasses.replace(model, reward=-measurement @ theta)
        own = solve_game(wanted, replies, iterations=iterations).own
        away = average - target.project(average)
        # At first, and wherever the average is in the set, the direction is that of the learner.
        away = jnp.where(jnp.linalg.norm(away) > 1e-6, away, theta)
        reply = worst_reply(dataclasses.replace(game, reward=-measurement @ away), own, replies)
        found = vector_returns(game, measurement, joint_policy(own, reply))
        average += (found - average) / time
        rate = 1.0 / (largest * jnp.sqrt(time))
        theta = into_ball(theta + rate * (found - target.farthest(theta)), 1.0)
        return (theta, average), average

    zero = jnp.zeros(measurement.shape[-1])
    first = target.project(zero)
    times = jnp.arange(1, rounds + 1, dtype=jnp.float32)
    return jax.lax.scan(one, (zero, first), times)[1]
