"""Elimination of value functions by their average Bellman error, from optimism."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative
from headwater.core.hypotheses import ValueClass
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.planning import greedy_table
from headwater.parts.value_class import first_values, following_values, most_optimistic

MEASURING, ELIMINATING, FINISHED = range(3)
"""What the next episodes are for."""


class OLIVEState(eqx.Module):
    """The version space, what the next episodes are for, and sums of the errors in them so far."""

    alive: Bool[Array, " candidate"]
    chosen: Int[Array, ""]
    phase: Int[Array, ""]
    step: Int[Array, ""]
    error: Float[Array, "horizon candidate"]
    episodes: Int[Array, ""]
    problem: ValueClass


class OLIVE(AbstractMethod[ValueClass, Episodes, OLIVEState], AbstractTablePolicy[OLIVEState]):
    r"""Drops every value function whose Bellman error is not zero on the average of what was seen.

    With $E_h(f, \pi)$ the mean of $f_h(s, a) - r - \max_{a'} f_{h+1}(s', a')$ where $\pi$ acts, it

    1. takes $f = \arg\max_{f \in B} E \max_a f_1(s_1, a)$, with greedy policy $\pi$;
    2. plays $\pi$ and stops if $\sum_h E_h(f, \pi)$, by which $f$ promises more than $\pi$ earns,
       is at most the termination threshold;
    3. else takes the step $t$ of the largest error, plays $\pi$ in fresh episodes, and keeps
       $B = \{g \in B : |E_t(g, \pi)| \le \text{elimination threshold}\}$.

    Averages hide the noise of transitions, which squares do not, so that it needs no functions that
    hold the backups (`helpers`), as GOLF does; it pays for that with many more episodes.

    **Arguments:**

    - `num_evaluation_episodes`: for the second step, at least.
    - `num_elimination_episodes`: for the third step, at least.
    - `episodes_per_update`: that are played at a time.
    - `termination_threshold`: of the sum of errors, in returns of at most one.
    - `elimination_threshold`: of the error at a step. Three standard errors of the mean keep the
      truth; fewer elimination episodes need a larger one.
    - `uniform_actions`: in the third step, a uniform action at step $t$, and for each $g$ only the
      episodes count that took its own (V-type); if false, all count, with the action of $\pi$
      (Q-type).

    **Reference:** Jiang, Krishnamurthy, Agarwal, Langford, Schapire (2017), arXiv:1610.09512; the
    Q-type is of Jin, Liu, Miryoosefi (2021), arXiv:2102.00815.

    **Differences from the paper:** the numbers of episodes and the thresholds are settings instead
    of functions of an accuracy, whose constants are far too large in practice. If no function is
    left (the class was wrong, or a threshold too small), it stops with the one whose error was
    smallest.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "jiang2017contextual",
        summary="optimism over value functions that no average Bellman error has refuted",
    )

    num_evaluation_episodes: int = integer(30)
    num_elimination_episodes: int = integer(120)
    episodes_per_update: int = integer(10)
    termination_threshold: float = non_negative(0.15)
    elimination_threshold: float = non_negative(0.08)
    uniform_actions: bool = flag(False)

    def init(self, problem: ValueClass, *, key: PRNGKeyArray) -> OLIVEState:
        problem.problem.require_one_task("OLIVE")
        problem.problem.require_initial("OLIVE")
        count, horizon = problem.candidates.shape[0], problem.problem.horizon
        alive, none = jnp.ones(count, bool), jnp.zeros((), jnp.int32)
        first = most_optimistic(problem, alive, jnp.zeros(count))
        return OLIVEState(alive, first, none, none, jnp.zeros((horizon, count)), none, problem)

    def update(self, state: OLIVEState, data: Episodes, *, key: PRNGKeyArray):
        problem = state.problem
        scale = jnp.asarray(problem.problem.reward_scale)
        added = self._errors(state, data)
        error = state.error + jnp.sum(added, axis=0)
        episodes = state.episodes + added.shape[0]
        mean = error / episodes

        own = mean[:, state.chosen]
        measured = (state.phase == MEASURING) & (episodes >= self.num_evaluation_episodes)
        finished = measured & (jnp.sum(own) <= self.termination_threshold * scale)
        step = jnp.where(measured, jnp.argmax(own), state.step).astype(jnp.int32)

        judged = (state.phase == ELIMINATING) & (episodes >= self.num_elimination_episodes)
        size = jnp.abs(mean[state.step])
        kept = state.alive & (size <= self.elimination_threshold * scale)
        alive = jnp.where(judged, kept, state.alive)
        least = jnp.where(state.alive, size, jnp.inf)
        chosen = jnp.where(judged, most_optimistic(problem, alive, least), state.chosen)
        finished = finished | (judged & ~jnp.any(alive))

        phase = jnp.where(measured, ELIMINATING, jnp.where(judged, MEASURING, state.phase))
        phase = jnp.where(finished, FINISHED, phase).astype(jnp.int32)
        anew = measured | judged
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "alive": jnp.mean(alive.astype(jnp.float32)),
            "optimistic_value": first_values(problem)[chosen],
            "finished": (phase == FINISHED).astype(jnp.float32),
        }
        return OLIVEState(
            alive,
            chosen.astype(jnp.int32),
            phase,
            step,
            jnp.where(anew, 0.0, error),
            jnp.where(anew, 0, episodes),
            problem,
        ), metrics

    def policy(self, state: OLIVEState, *, explore: bool):
        greedy = greedy_table(state.problem.candidates[state.chosen])[0]
        if not explore:
            return greedy
        free = (state.phase == ELIMINATING) & self.uniform_actions
        free = free & (jnp.arange(greedy.shape[0]) == state.step)
        played = jnp.where(free[:, None, None], 1.0 / greedy.shape[-1], greedy)
        return jnp.broadcast_to(played, (self.episodes_per_update, *greedy.shape))

    def _errors(
        self, state: OLIVEState, data: Episodes
    ) -> Float[Array, "episode horizon candidate"]:
        """The Bellman error of every candidate in every step, weighted where actions are free."""
        candidates = jnp.moveaxis(state.problem.candidates, 0, -1)
        after = following_values(state.problem)
        seen, action, reward = (
            x.reshape(-1, x.shape[-1]) for x in (data.state, data.action, data.reward)
        )
        step = jnp.broadcast_to(jnp.arange(action.shape[-1]), action.shape)
        here = seen[:, :-1]
        error = candidates[step, here, action] - reward[..., None] - after[step, seen[:, 1:]]
        if not self.uniform_actions:
            return error
        actions = candidates.shape[2]
        own = jnp.argmax(candidates, axis=2)[step, here] == action[..., None]
        weighted = actions * jnp.where(own, error, 0.0)
        return jnp.where(state.phase == ELIMINATING, weighted, error)
