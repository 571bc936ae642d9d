"""Levels that agents have learned in, kept with scores, so that the most telling ones come again.

A level is a task and a lifetime. Each agent's level has a slot of the buffer, in which no other
level is put before that agent's lifetime is over.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.finite import FiniteProblem
from headwater.ops.rows import where_rows
from headwater.parts.meta.unrolled import Learners


class LevelBuffer(eqx.Module):
    """Levels and what is known of them.

    **Arguments:** `score`: when it was last learned in to the end, nought before; `scored`: whether
    it was; `active`: whether an agent is learning in it.
    """

    transition: Float[Array, "slot horizon state action state"]
    reward: Float[Array, "slot horizon state action"]
    initial: Float[Array, "slot state"]
    lifetime: Int[Array, " slot"]
    score: Float[Array, " slot"]
    scored: Bool[Array, " slot"]
    active: Bool[Array, " slot"]


def empty_buffer(problem: FiniteProblem, slots: int) -> LevelBuffer:
    """No level in any slot."""
    never = jnp.zeros(slots, bool)
    return LevelBuffer(
        jnp.zeros((slots, *problem.sizes, problem.states)),
        jnp.zeros((slots, *problem.sizes)),
        jnp.zeros((slots, problem.states)),
        jnp.zeros(slots, jnp.int32),
        jnp.zeros(slots),
        never,
        never,
    )


def record_scores(
    buffer: LevelBuffer,
    slot: Int[Array, " task"],
    score: Float[Array, " task"],
    ended: Bool[Array, " task"],
) -> LevelBuffer:
    """The levels of lifetimes that have ended get their score, and are free again."""
    place = jnp.where(ended, slot, buffer.score.shape[0])
    return dataclasses.replace(
        buffer,
        score=buffer.score.at[place].set(score, mode="drop"),
        scored=buffer.scored.at[place].set(True, mode="drop"),
        active=buffer.active.at[place].set(False, mode="drop"),
    )


def next_levels(
    buffer: LevelBuffer,
    slot: Int[Array, " task"],
    fresh: Learners,
    over: Bool[Array, " task"],
    replay_probability: float | Float[Array, ""],
    temperature: float | Float[Array, ""],
    *,
    key: PRNGKeyArray,
) -> tuple[LevelBuffer, Int[Array, " task"], Learners, Bool[Array, " task"]]:
    """Levels for the agents that begin: some from the buffer, the others new.

    Levels come again, none twice, with probabilities as rank to the power of -1 over `temperature`,
    once there are as many that were scored, and are free, as agents. New levels take the slots of
    what was never scored, then of the lowest scores.

    **Arguments:** `slot`: of each agent's level; `fresh`: agents in new levels; `over`: who begins.
    **Returns:** the buffer, the slots, the beginners (rows that are not `over` mean nothing), and
    which of them are in levels that come again.
    """
    agents, slots = over.shape[0], buffer.score.shape[0]
    choice_key, rank_key = jax.random.split(key)
    free = buffer.scored & ~buffer.active
    again = jax.random.bernoulli(choice_key, replay_probability, (agents,))
    again = again & over & (jnp.sum(free) >= agents)
    # What is drawn with noise of this kind is as if drawn one after the other.
    order = jnp.argsort(jnp.where(free, -buffer.score, jnp.inf))
    rank = jnp.zeros(slots).at[order].set(jnp.arange(1.0, slots + 1.0))
    noisy = jax.random.gumbel(rank_key, (slots,)) - jnp.log(rank) / temperature
    best = jax.lax.top_k(jnp.where(free, noisy, -jnp.inf), agents)[1]
    found = best[jnp.cumsum(again) - 1]
    active = buffer.active.at[jnp.where(again, found, slots)].set(True, mode="drop")
    new = over & ~again
    worth = jnp.where(buffer.scored, buffer.score, -jnp.inf)
    worst = jnp.argsort(jnp.where(active, jnp.inf, worth))[:agents]
    freed = worst[jnp.cumsum(new) - 1]
    place = jnp.where(new, freed, slots)
    fields = ("transition", "reward", "initial", "lifetime")
    put = {
        name: getattr(buffer, name).at[place].set(getattr(fresh, name), mode="drop")
        for name in fields
    }
    buffer = dataclasses.replace(
        buffer,
        **put,
        score=buffer.score.at[place].set(0.0, mode="drop"),
        scored=buffer.scored.at[place].set(False, mode="drop"),
        active=active.at[place].set(True, mode="drop"),
    )
    old = dataclasses.replace(fresh, **{name: getattr(buffer, name)[found] for name in fields})
    slot = jnp.where(again, found, jnp.where(new, freed, slot))
    return buffer, slot, where_rows(again, old, fresh), again
