r"""Two-player zero-sum Markov games: exact planning by backward induction, compiled.

A game is a `FiniteProcess` whose actions are pairs, `own * replies + reply`: at every step both
players choose at once, the first to make the sum of rewards large and the second to make it small.
So whatever explores a process explores a game, with both players' actions in one hand, and a model
that was learned without rewards is planned in for any of them. What makes it a game is `replies`,
the number of actions of the second player, which every function here is told.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.planning import optimal_values


class GamePlan(eqx.Module):
    """A policy for each player, and what these are worth from every step and state on.

    **Arguments:** `own`, `reply`: probabilities of actions; `secured`: what `own` earns whatever
    the second player does; `conceded`: what `reply` lets the first player earn at most. The value
    of the game lies between the two, which are equal where the policies are exactly an equilibrium.
    Both are one step longer than an episode, zero after the last.
    """

    own: Float[Array, "horizon state own"]
    reply: Float[Array, "horizon state reply"]
    secured: Float[Array, "horizon+1 state"]
    conceded: Float[Array, "horizon+1 state"]


@eqx.filter_jit
def solve_game(process: FiniteProcess, replies: int, *, iterations: int = 1000) -> GamePlan:
    """An equilibrium of the game, as near as `iterations` of `equilibrium` at each state bring it.

    Raises `SpecificationError` if the actions are no pairs with `replies` actions.
    """
    _require_pairs(process, replies)

    def one(following, step):
        transition, reward = step
        secured, conceded = following

        def pairs(value):
            return (reward + transition @ value).reshape(process.states, -1, replies)

        own, reply = equilibrium(pairs((secured + conceded) / 2.0), iterations)
        secured = jnp.min(jnp.einsum("sab,sa->sb", pairs(secured), own), axis=-1)
        conceded = jnp.max(jnp.einsum("sab,sb->sa", pairs(conceded), reply), axis=-1)
        return (secured, conceded), (own, reply, secured, conceded)

    nothing = jnp.zeros_like(process.initial)
    steps = process.transition, process.reward
    _, (own, reply, *values) = jax.lax.scan(one, (nothing, nothing), steps, reverse=True)
    secured, conceded = (jnp.concatenate([x, jnp.zeros_like(x[:1])]) for x in values)
    return GamePlan(own, reply, secured, conceded)


def equilibrium(
    payoff: Float[Array, "*game own reply"], iterations: int
) -> tuple[Float[Array, "*game own"], Float[Array, "*game reply"]]:
    r"""Mixed strategies of matrix games, by regret matching+ of both players in turn.

    The weight of an iteration in the averages is its number. What either strategy falls short of
    the value is at most of the order of one over the square root of `iterations`, and as a rule
    nearer to one over their number (Tammelin, Burch, Johanson and Bowling, 2015).

    Raises `SpecificationError` if there is no iteration.
    """
    if iterations < 1:
        raise SpecificationError(f"iterations = {iterations} must be at least 1")

    def one(carry, iteration):
        own_regret, reply_regret, own_sum, reply_sum = carry
        own, reply = _matched(own_regret), _matched(reply_regret)
        earned = jnp.einsum("...ab,...b->...a", payoff, reply)
        own_regret = _raised(own_regret, earned, own)
        own = _matched(own_regret)
        paid = -jnp.einsum("...ab,...a->...b", payoff, own)
        reply_regret = _raised(reply_regret, paid, reply)
        sums = own_sum + iteration * own, reply_sum + iteration * reply
        return (own_regret, reply_regret, *sums), None

    own, reply = jnp.zeros_like(payoff[..., 0]), jnp.zeros_like(payoff[..., 0, :])
    times = jnp.arange(1, iterations + 1, dtype=payoff.dtype)
    (*_, own, reply), _ = jax.lax.scan(one, (own, reply, own, reply), times)
    return own / jnp.sum(own, -1, keepdims=True), reply / jnp.sum(reply, -1, keepdims=True)


def facing(
    process: FiniteProcess, own: Float[Array, "horizon state own"], replies: int
) -> FiniteProcess:
    """What the second player faces when the first acts by `own`: a process of its actions alone.

    Raises `SpecificationError` if the actions are no pairs with `replies` actions.
    """
    _require_pairs(process, replies)
    size = (process.horizon, process.states, -1, replies)
    rows = process.transition.reshape(*size, process.states)
    return FiniteProcess(
        jnp.einsum("hsa,hsabt->hsbt", own, rows),
        jnp.einsum("hsa,hsab->hsb", own, process.reward.reshape(size)),
        process.initial,
    )


def worst_reply(
    process: FiniteProcess, own: Float[Array, "horizon state own"], replies: int
) -> Float[Array, "horizon state reply"]:
    """The second player's policy against which `own` earns least, exact."""
    faced = facing(process, own, replies)
    return optimal_values(eqx.tree_at(lambda p: p.reward, faced, -faced.reward)).policy


def secured_return(
    process: FiniteProcess, own: Float[Array, "horizon state own"], replies: int
) -> Float[Array, ""]:
    """The expected return of `own` against whoever knows it and makes it as small as can be."""
    faced = facing(process, own, replies)
    least = optimal_values(eqx.tree_at(lambda p: p.reward, faced, -faced.reward)).value[0]
    return -jnp.dot(process.initial, least)


def joint_policy(
    own: Float[Array, "horizon state own"], reply: Float[Array, "horizon state reply"]
) -> Float[Array, "horizon state pair"]:
    """The policy over pairs of two players who draw their actions independently."""
    return (own[..., :, None] * reply[..., None, :]).reshape(*own.shape[:2], -1)


def _matched(regret: Float[Array, "*game action"]) -> Float[Array, "*game action"]:
    """In proportion to the regrets, uniform where there are none."""
    total = jnp.sum(regret, axis=-1, keepdims=True)
    uniform = jnp.full_like(regret, 1.0 / regret.shape[-1])
    return jnp.where(total > 0.0, regret / jnp.where(total > 0.0, total, 1.0), uniform)


def _raised(regret: Array, earned: Array, played: Array) -> Array:
    received = jnp.sum(earned * played, axis=-1, keepdims=True)
    return jnp.maximum(regret + earned - received, 0.0)


def _require_pairs(process: FiniteProcess, replies: int) -> None:
    if replies < 1 or process.actions % replies:
        raise SpecificationError(
            f"the process has {process.actions} actions, which are no pairs of an own action and "
            f"one of {replies} replies: they are counted as own * replies + reply"
        )
