"""Learned policy gradient: an update rule, found by gradients through a few updates of agents."""

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, AbstractUpdateRule, Info
from headwater.ops.rows import where_rows
from headwater.parts.meta.unrolled import (
    Unrolling,
    begin_unrolling,
    fresh_learners,
    improve_rule,
    policies_by_rule,
)


class LPG(
    AbstractMethod[FiniteProblem, FiniteProcess, Unrolling],
    AbstractTablePolicy[Unrolling],
    AbstractUpdateRule[Unrolling],
):
    r"""Learns an update rule by gradients through a few updates of agents.

    A recurrent network reads an agent's episodes backwards and says for every step how much more
    likely the action is to become, $\hat\pi$, and what to predict, $\hat y$. The agent takes a step
    up $E[\hat\pi\log\pi(a|s) - \alpha\,KL(y(s)\,\Vert\,\hat y)]$; what $y$ means is left to the
    rule. One update: each agent takes `unroll_updates` steps, and the rule moves up the gradient,
    through these, of the return that they lead to, with bonuses for entropy and penalties of
    outputs. Agents go on from update to update, and begin anew, in a new task, at the end of
    their lifetime.

    **Arguments:**

    - `lifetime_scale`: of $t/T$ and $\log T$, which the rule of `TALPG` sees; 0 hides them.
    - `shortest_lifetime`, `longest_lifetime`: of an agent, in updates; $\log T$ is uniform.
    - `unroll_updates`: of an agent, in one update of the rule.
    - `episodes_per_update`: episodes that an agent plays for one update.
    - `num_predictions`: entries of the prediction $y$.
    - `recurrent_size`: units of the rule that remember the rest of an episode.
    - `prediction_weight`: $\alpha$.
    - `agent_learning_rate`, `prediction_learning_rate`: of the agent's policy and prediction.
    - `max_gradient_norm`: of the agent.
    - `policy_entropy_weight`, `prediction_entropy_weight`: of the bonuses.
    - `policy_penalty`, `prediction_penalty`: of the mean squares of $\hat\pi$ and the logits of
      $\hat y$.
    - `learning_rate`: of Adam, for the rule.

    **Reference:** Oh, Hessel, Czarnecki, Xu, van Hasselt, Singh, Silver (2020), arXiv:2007.08794.

    **Differences from the paper:** agents have tables over the steps and states of finite processes
    and learn from whole episodes, without a discount; the return that they lead to is computed from
    the task, and so is its gradient, where the paper estimates both with a critic; lifetimes vary.
    """

    feed: ClassVar[Feed] = Feed.TASKS
    info: ClassVar[Info] = Info(
        "oh2020discovering",
        summary="learns an update rule by gradients through a few updates of agents",
    )

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

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> Unrolling:
        return begin_unrolling(self, problem, "LPG", key=key)

    def update(self, state: Unrolling, data: FiniteProcess, *, key: PRNGKeyArray):
        start_key, agent_key = jax.random.split(key)
        agents = state.agents
        # Who is at the end of a lifetime begins anew, in the task that the data have for it.
        fresh = fresh_learners(self, agents, data, key=start_key)
        state = dataclasses.replace(state, agents=where_rows(agents.over, fresh, agents))
        return improve_rule(self, state, data, key=agent_key)

    def policy(self, state: Unrolling, *, explore: bool) -> Array:
        return jax.nn.softmax(state.agents.agent.policy)

    def apply_rule(
        self, state: Unrolling, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        return policies_by_rule(self, state.rule, process, lifetime, key=key)
