"""Learned policy gradient: an update rule, found by gradients through a few updates of agents."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, AbstractUpdateRule, Info
from headwater.networks.meta.update_rule import UpdateRule
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.tabular.planning import expected_return
from headwater.parts.meta.agents import (
    PredictingAgent,
    drawn_lifetime,
    entropy_of,
    first_agent,
    follow_rule,
)
from headwater.parts.meta.evolution import policies_of_lifetime


class Learners(eqx.Module):
    """Agents that are learning, each in a task of its own; ages are in updates."""

    agent: PredictingAgent
    transition: Float[Array, "task horizon state action state"]
    reward: Float[Array, "task horizon state action"]
    initial: Float[Array, "task state"]
    age: Int[Array, " task"]
    lifetime: Int[Array, " task"]

    def tasks(self, like: FiniteProcess) -> FiniteProcess:
        """The tasks that agents learn in, noisy if those of `like` are."""
        return dataclasses.replace(
            like, transition=self.transition, reward=self.reward, initial=self.initial
        )


class LPGState(eqx.Module):
    """The rule, moments of Adam, and the agents that learn by the rule."""

    rule: UpdateRule
    optimiser: optax.OptState
    agents: Learners


class LPG(
    AbstractMethod[FiniteProblem, FiniteProcess, LPGState],
    AbstractTablePolicy[LPGState],
    AbstractUpdateRule[LPGState],
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

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> LPGState:
        tasks = problem.require_tasks("LPG")
        rule = UpdateRule(self.num_predictions, self.recurrent_size, key=key)
        agent = first_agent(problem.sizes, self.num_predictions)
        sizes, none = (tasks, *problem.sizes), jnp.zeros(tasks, jnp.int32)
        agents = Learners(
            jax.tree.map(lambda x: jnp.zeros((tasks, *x.shape)), agent),
            jnp.zeros((*sizes, problem.states)),
            jnp.zeros(sizes),
            jnp.zeros((tasks, problem.states)),
            none,
            none,
        )
        return LPGState(rule, begin(optax.adam(self.learning_rate), rule), agents)

    def update(self, state: LPGState, data: FiniteProcess, *, key: PRNGKeyArray):
        start_key, agent_key = jax.random.split(key)
        agents = self._restarted(state.agents, data, key=start_key)
        keys = jax.random.split(agent_key, agents.age.shape[0])

        def loss(rule: UpdateRule):
            unrolled = jax.vmap(self._unrolled, in_axes=(None, 0, 0, 0))
            losses, after, returns = unrolled(rule, agents, agents.tasks(data), keys)
            return jnp.mean(losses), (after, jnp.mean(returns))

        gradients, (agent, returns) = jax.grad(loss, has_aux=True)(state.rule)
        adam = optax.adam(self.learning_rate)
        rule, optimiser = descend(adam, gradients, state.optimiser, state.rule)
        age = agents.age + self.unroll_updates
        agents = dataclasses.replace(agents, agent=agent, age=age)
        found = {"return": returns, "entropy": entropy_of(agent.policy)}
        return LPGState(rule, optimiser, agents), found

    def policy(self, state: LPGState, *, explore: bool) -> Array:
        return jax.nn.softmax(state.agents.agent.policy)

    def apply_rule(
        self, state: LPGState, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        agent = first_agent(process.reward.shape[-3:], self.num_predictions)

        def step(rule, agent, process, passed, lifetime, key):
            return follow_rule(self, rule, agent, process, passed, lifetime, key=key)[0]

        return policies_of_lifetime(
            step, state.rule, agent, process, lifetime, lambda agent: agent.policy, key=key
        )

    def _unrolled(self, rule: UpdateRule, one: Learners, process: FiniteProcess, key: PRNGKeyArray):
        """The loss of a rule for one agent; the agent after some updates, and its return."""

        def step(agent, given):
            passed, key = given
            age = one.age + passed
            return follow_rule(self, rule, agent, process, age, one.lifetime, key=key)

        given = jnp.arange(self.unroll_updates), jax.random.split(key, self.unroll_updates)
        agent, outputs = jax.lax.scan(step, one.agent, given)
        returned = expected_return(process, jax.nn.softmax(agent.policy))
        gain = (
            returned
            + self.policy_entropy_weight * entropy_of(agent.policy)
            + self.prediction_entropy_weight * entropy_of(agent.prediction)
            - self.policy_penalty * jnp.mean(outputs.policy**2)
            - self.prediction_penalty * jnp.mean(outputs.prediction**2)
        )
        return -gain, agent, returned

    def _restarted(self, agents: Learners, data: FiniteProcess, *, key: PRNGKeyArray) -> Learners:
        """Agents whose lifetime is over begin anew, in the task that the data have for them."""
        ages = (self.shortest_lifetime, self.longest_lifetime)
        keys = jax.random.split(key, agents.age.shape[0])
        fresh = Learners(
            jax.tree.map(jnp.zeros_like, agents.agent),
            data.transition,
            data.reward,
            data.initial,
            jnp.zeros_like(agents.age),
            jax.vmap(lambda key: drawn_lifetime(*ages, key=key))(keys),
        )
        over = agents.age >= agents.lifetime

        def chosen(new, old):
            return jnp.where(over.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        return jax.tree.map(chosen, fresh, agents)
