"""Q-learning with random actions now and then."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, real, share
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.counts import at_least_once
from headwater.ops.tabular.planning import greedy_table


class QLearningState(eqx.Module):
    """Action values."""

    action_value: Float[Array, "horizon state action"]
    problem: FiniteProblem


class QLearning(
    AbstractMethod[FiniteProblem, Episodes, QLearningState], AbstractTablePolicy[QLearningState]
):
    r"""Moves action values towards what followed; explores with probability ε.

    $Q_h(s, a) \leftarrow Q_h(s, a) + \alpha (r + \max_{a'} Q_{h+1}(s', a') - Q_h(s, a))$ for each
    step of an episode. The baseline that explores without a plan: what it takes long sequences of
    right actions to see, it does not see.

    **Arguments:**

    - `learning_rate`: α.
    - `exploration_rate`: ε, probability of an action at random.
    - `initial_value`: Q before any data; the largest return makes it optimistic.

    **Reference:** Watkins, Dayan (1992), Machine Learning 8.

    **Differences from the paper:** episodes of one batch are all compared with the values before
    it; for each step, state and action their mean counts, with a rate of $1 - (1 - \alpha)^n$ for
    $n$ of them. Action values belong to a step of the horizon.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "watkins1992qlearning",
        summary="action values learned from single steps, with random actions now and then",
    )

    learning_rate: float = non_negative(0.1)
    exploration_rate: float = share(0.1)
    initial_value: float = real(0.0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> QLearningState:
        problem.require_one_task("QLearning")
        start = jnp.broadcast_to(jnp.asarray(self.initial_value, jnp.float32), problem.sizes)
        return QLearningState(start, problem)

    def update(self, state: QLearningState, data: Episodes, *, key: PRNGKeyArray):
        old = state.action_value
        value = jnp.max(old, axis=-1)
        value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        step = jnp.broadcast_to(jnp.arange(old.shape[0]), data.action.shape)
        at = step, data.state[..., :-1], data.action
        error = data.reward + value[step, data.state[..., 1:]] - old[at]
        visits = jnp.zeros_like(old).at[at].add(1.0)
        mean = jnp.zeros_like(old).at[at].add(error) / at_least_once(visits)
        rate = 1.0 - (1.0 - self.learning_rate) ** visits
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "error": jnp.mean(jnp.abs(error)),
        }
        return QLearningState(old + rate * mean, state.problem), metrics

    def policy(self, state: QLearningState, *, explore: bool):
        greedy = greedy_table(state.action_value)[0]
        if not explore:
            return greedy
        chance = jnp.clip(self.exploration_rate, 0.0, 1.0)
        return (1.0 - chance) * greedy + chance / greedy.shape[-1]
