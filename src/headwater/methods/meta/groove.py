"""General optimisers by environment design: an update rule, found in levels that it learns ill."""

import dataclasses
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive, share
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, AbstractUpdateRule, Info
from headwater.ops.rows import where_rows
from headwater.ops.tabular.planning import expected_return, occupancy, policy_values
from headwater.parts.meta.antagonist import Antagonist, advance, first_antagonist
from headwater.parts.meta.level_buffer import LevelBuffer, empty_buffer, next_levels, record_scores
from headwater.parts.meta.unrolled import (
    Unrolling,
    begin_unrolling,
    fresh_learners,
    improve_rule,
    policies_by_rule,
)


class GROOVEState(eqx.Module):
    """What learns, the levels, which of them each agent is in, and each agent's antagonist."""

    learned: Unrolling
    buffer: LevelBuffer
    slot: Int[Array, " task"]
    antagonist: Antagonist | None


class GROOVE(
    AbstractMethod[FiniteProblem, FiniteProcess, GROOVEState],
    AbstractTablePolicy[GROOVEState],
    AbstractUpdateRule[GROOVEState],
):
    r"""Learns an update rule as `LPG` does, in levels in which a known algorithm learns more.

    When an agent's lifetime is over, its level (a task and a lifetime) is scored by *algorithmic
    regret*: the return of an antagonist, which has learned in it for the same time by advantage
    actor-critic, less the agent's. The next agent begins in a level of a buffer, those with high
    scores more often, or else in the task that the data have for it, which then takes the place of
    the level with the lowest score.

    **Arguments:**

    - `score`: `"regret"`, or `"value_loss"`: the mean of what the agent's actions are better or
      worse than its policy, $E|A^\pi(s, a)|$.
    - `num_levels`: levels that are kept, at least two for each task of a draw.
    - `replay_probability`: of a level from the buffer; 0 is `LPG`.
    - `rank_temperature`: levels come again as their rank to the power of minus one over this.
    - `antagonist_learning_rate`, `value_learning_rate`: of the antagonist's policy and values.
    - `entropy_weight`: of the antagonist's policy.
    - `gae_lambda`: $\lambda$ of the antagonist's advantages.
    - `lifetime_scale`: of $t/T$ and $\log T$, if the rule is to see them.
    - `shortest_lifetime`, `longest_lifetime`: of an agent, in updates; $\log T$ is uniform.
    - `unroll_updates`: of an agent, in one update of the rule.
    - `episodes_per_update`: episodes that an agent, or antagonist, plays for one update.
    - `num_predictions`: entries of what agents predict.
    - `recurrent_size`: units of the rule that remember the rest of an episode.
    - `prediction_weight`: of the divergence of the prediction from what the rule says.
    - `agent_learning_rate`, `prediction_learning_rate`: of the agent's policy and prediction.
    - `max_gradient_norm`: of agents and antagonists.
    - `policy_entropy_weight`, `prediction_entropy_weight`: of the bonuses.
    - `policy_penalty`, `prediction_penalty`: of the mean squares of what the rule says.
    - `learning_rate`: of Adam, for the rule.

    **Reference:** Jackson, Jiang, Parker-Holder, Vuorio, Lu, Farquhar, Whiteson, Foerster (2023),
    arXiv:2310.02782.

    **Differences from the paper:** those of `LPG`. Returns and the value loss are computed from the
    task and not estimated; the antagonist learns beside the agent, from as many episodes, and not
    afterwards; levels are drawn by rank, of which the authors' code takes the highest (as at a
    temperature near 0); the buffer holds 256 levels, for 4,000.

    Raises `SpecificationError` if the buffer is too small for the tasks.
    """

    feed: ClassVar[Feed] = Feed.TASKS
    info: ClassVar[Info] = Info(
        "jackson2023discovering",
        summary="learns an update rule in levels where a known algorithm learns more by it",
        parents=("LPG",),
    )

    score: Literal["regret", "value_loss"] = choice("regret")
    num_levels: int = integer(256)
    replay_probability: float = share(0.5)
    rank_temperature: float = positive(1.0)
    antagonist_learning_rate: float = non_negative(40.0)
    value_learning_rate: float = non_negative(4.0)
    entropy_weight: float = non_negative(0.01)
    gae_lambda: float = share(0.95)
    lifetime_scale: float = non_negative(0.0)
    shortest_lifetime: int = integer(10, static=False)
    longest_lifetime: int = integer(250, static=False)
    unroll_updates: int = integer(5)
    episodes_per_update: int = integer(64)
    num_predictions: int = integer(8)
    recurrent_size: int = integer(256)
    prediction_weight: float = non_negative(0.5)
    agent_learning_rate: float = non_negative(40.0)
    prediction_learning_rate: float = non_negative(4.0)
    max_gradient_norm: float = positive(0.5)
    policy_entropy_weight: float = non_negative(0.05)
    prediction_entropy_weight: float = non_negative(0.001)
    policy_penalty: float = non_negative(0.005)
    prediction_penalty: float = non_negative(0.001)
    learning_rate: float = non_negative(1e-4)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> GROOVEState:
        tasks = problem.require_tasks("GROOVE")
        if self.num_levels < 2 * tasks:
            raise SpecificationError(
                f"GROOVE.num_levels = {self.num_levels}: of {tasks} tasks at once, it must hold "
                f"at least {2 * tasks} levels"
            )
        first = jax.tree.map(
            lambda x: jnp.zeros((tasks, *x.shape)), first_antagonist(problem.sizes)
        )
        return GROOVEState(
            begin_unrolling(self, problem, "GROOVE", key=key),
            empty_buffer(problem, self.num_levels),
            jnp.zeros(tasks, jnp.int32),
            first if self.score == "regret" else None,
        )

    def update(self, state: GROOVEState, data: FiniteProcess, *, key: PRNGKeyArray):
        # The first two keys are those of `LPG`.
        start_key, agent_key = jax.random.split(key)
        level_key, antagonist_key = jax.random.split(jax.random.fold_in(key, 2))
        agents, antagonist = state.learned.agents, state.antagonist
        over = agents.over
        policies = jax.nn.softmax(agents.agent.policy)
        scores = self.scores(policies, antagonist, agents.tasks(data))
        # Nobody has learned in what was there before the first update.
        buffer = record_scores(state.buffer, state.slot, scores, over & (agents.lifetime > 0))
        buffer, slot, begun, again = next_levels(
            buffer,
            state.slot,
            fresh_learners(self, agents, data, key=start_key),
            over,
            self.replay_probability,
            self.rank_temperature,
            key=level_key,
        )
        agents = where_rows(over, begun, agents)
        if antagonist is not None:
            new = jax.tree.map(jnp.zeros_like, antagonist)
            keys = jax.random.split(antagonist_key, agents.age.shape[0])
            antagonist = jax.vmap(
                lambda one, task, key: advance(self, one, task, self.unroll_updates, key=key)
            )(where_rows(over, new, antagonist), agents.tasks(data), keys)
        learned = dataclasses.replace(state.learned, agents=agents)
        learned, metrics = improve_rule(self, learned, data, key=agent_key)
        known = jnp.sum(jnp.where(buffer.scored, buffer.score, 0.0))
        metrics |= {
            "score": known / jnp.maximum(jnp.sum(buffer.scored), 1),
            "replayed": jnp.mean(again.astype(jnp.float32)),
        }
        return GROOVEState(learned, buffer, slot, antagonist), metrics

    def scores(
        self,
        policies: Float[Array, "task horizon state action"],
        antagonist: Antagonist | None,
        tasks: FiniteProcess,
    ) -> Float[Array, " task"]:
        """Of levels in which agents ended with these policies; no antagonist: the value loss."""
        if antagonist is not None:
            gained = jax.vmap(expected_return)(tasks, jax.nn.softmax(antagonist.policy))
            return gained - jax.vmap(expected_return)(tasks, policies)
        plan = jax.vmap(policy_values)(tasks, policies)
        advantage = jnp.abs(plan.action_value - plan.value[:, :-1, :, None])
        weight = jax.vmap(occupancy)(tasks, policies)
        return jnp.sum(weight * advantage, axis=(1, 2, 3)) / tasks.horizon

    def policy(self, state: GROOVEState, *, explore: bool) -> Array:
        return jax.nn.softmax(state.learned.agents.agent.policy)

    def apply_rule(
        self, state: GROOVEState, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        return policies_by_rule(self, state.learned.rule, process, lifetime, key=key)
