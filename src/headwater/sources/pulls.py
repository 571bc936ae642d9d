"""Rounds of a bandit: pulled live, or logged."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.finite import draw_index
from headwater.core.method import Agent
from headwater.core.records import Pulls
from headwater.core.source import AbstractSource
from headwater.environments.bandits.bandit import AbstractBandit


class Pulling(eqx.Module):
    """Where the bandit is, the pulls whose rewards are on their way, and how many were made."""

    bandit: Any
    waiting: Pulls | None
    draws: Int[Array, ""]
    pulls: Int[Array, ""]


class LivePulls(AbstractSource[Pulling, Pulls]):
    """Pulls arms of a bandit as the method's distribution says, and writes the propensity.

    **Arguments:** `bandit`; `batch_size`: rounds in which the method does not learn, whose pulls it
    gets together; `delay`: draws after which pulls become known: so many are made before the first
    update; `shows_all`: what every arm would have earned becomes known, not just the one pulled.
    """

    bandit: AbstractBandit
    batch_size: int = eqx.field(static=True, default=1)
    delay: int = eqx.field(static=True, default=0)
    shows_all: bool = eqx.field(static=True, default=False)

    def init(self, *, key: PRNGKeyArray) -> Pulling:
        problem, rows = self.bandit.problem, (self.delay, self.batch_size)
        empty = jnp.zeros(rows)
        waiting = Pulls(
            jnp.zeros((*rows, problem.context_size)),
            jnp.zeros((*rows, problem.arms, problem.feature_size)),
            jnp.zeros(rows, jnp.int32),
            empty,
            empty,
            jnp.zeros((*rows, problem.arms)) if self.shows_all else None,
            empty,
        )
        none = jnp.zeros((), jnp.int32)
        return Pulling(self.bandit.reset(), waiting if self.delay else None, none, none)

    def prepare(self, state: Pulling, agent: Agent, *, key: PRNGKeyArray) -> Pulling:
        def one(state, key):
            return self._draw(state, agent, key=key)[0], None

        return (
            jax.lax.scan(one, state, jax.random.split(key, self.delay))[0] if self.delay else state
        )

    def draw(self, state: Pulling, agent: Agent, *, key: PRNGKeyArray):
        return self._draw(state, agent, key=key)

    def environment_steps(self, state: Pulling) -> Int[Array, ""]:
        return state.pulls

    def _draw(self, state: Pulling, agent: Agent, *, key: PRNGKeyArray):
        pull_key, step_key = jax.random.split(key)
        keys = jax.random.split(pull_key, self.batch_size)
        known = jax.vmap(lambda key: self._pull(state.bandit, agent, key=key))(keys)

        def step(bandit, given):
            return self.bandit.step(bandit, given[0], key=given[1]), None

        steps = (known.arm, jax.random.split(step_key, self.batch_size))
        bandit, _ = jax.lax.scan(step, state.bandit, steps, unroll=self.batch_size == 1)
        waiting = state.waiting
        if waiting is not None:
            place = state.draws % self.delay
            made, known = known, jax.tree.map(lambda x: x[place], waiting)
            waiting = jax.tree.map(lambda x, new: x.at[place].set(new), waiting, made)
        return Pulling(bandit, waiting, state.draws + 1, state.pulls + self.batch_size), known

    def _pull(self, bandit: Any, agent: Agent, *, key: PRNGKeyArray) -> Pulls:
        show_key, policy_key, arm_key, reward_key = jax.random.split(key, 4)
        context, features = self.bandit.show(bandit, key=show_key)
        probabilities = agent.probabilities(context, features, key=policy_key, explore=True)
        arm = draw_index(probabilities, jax.random.uniform(arm_key))
        means = self.bandit.mean_reward(bandit, context, features)
        rewards = None
        if self.shows_all:
            rewards = self.bandit.reward(means, key=reward_key)
        reward = self.bandit.reward(means[arm], key=reward_key) if rewards is None else rewards[arm]
        return Pulls(
            context,
            features,
            arm,
            reward,
            probabilities[arm],
            rewards,
            jnp.max(means) - means[arm],
        )


class LogPlace(eqx.Module):
    """The next logged row."""

    row: Int[Array, ""]


class LoggedPulls(AbstractSource[LogPlace, Pulls]):
    """Rows of a log, in their order and again from the start, or drawn uniformly.

    **Arguments:** `data`: `[row, …]`; its `features` may have one row, of arms that are the same in
    every round; `batch_size`: rows per draw; `in_order`.
    """

    data: Pulls
    batch_size: int = eqx.field(static=True, default=1)
    in_order: bool = eqx.field(static=True, default=True)

    def init(self, *, key: PRNGKeyArray) -> LogPlace:
        return LogPlace(jnp.zeros((), jnp.int32))

    def draw(self, state: LogPlace, agent: Agent, *, key: PRNGKeyArray):
        size = self.data.reward.shape[0]
        rows = jax.random.randint(key, (self.batch_size,), 0, size)
        if self.in_order:
            rows = (state.row + jnp.arange(self.batch_size)) % size
        features = self.data.features
        held = eqx.tree_at(lambda d: d.features, self.data, jnp.zeros((size, 0, 0)))
        drawn = jax.tree.map(lambda column: column[rows], held)
        same = features.shape[0] == 1
        shown: Float[Array, "row arm feature"] = (
            jnp.broadcast_to(features, (self.batch_size, *features.shape[1:]))
            if same
            else jnp.asarray(features)[rows]
        )
        drawn = eqx.tree_at(lambda d: d.features, drawn, shown)
        # Counted modulo the size, since passes may be many.
        return LogPlace((state.row + self.batch_size) % size), drawn
