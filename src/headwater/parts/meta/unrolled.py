"""Update rules that move by gradients through a few updates of agents, who learn on meanwhile.

Functions take the method itself for its `settings`.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import Metrics
from headwater.networks.meta.update_rule import UpdateRule
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.tabular.planning import expected_return
from headwater.parts.meta.agents import (
    Number,
    PredictingAgent,
    RuleSettings,
    drawn_lifetime,
    entropy_of,
    first_agent,
    follow_rule,
)
from headwater.parts.meta.evolution import policies_of_lifetime


@runtime_checkable
class UnrollSettings(RuleSettings, Protocol):
    """The hyper-parameters that are read from a method, and those of `follow_rule`."""

    @property
    def shortest_lifetime(self) -> int | Int[Array, ""]: ...
    @property
    def longest_lifetime(self) -> int | Int[Array, ""]: ...
    @property
    def unroll_updates(self) -> int: ...
    @property
    def num_predictions(self) -> int: ...
    @property
    def recurrent_size(self) -> int: ...
    @property
    def policy_entropy_weight(self) -> Number: ...
    @property
    def prediction_entropy_weight(self) -> Number: ...
    @property
    def policy_penalty(self) -> Number: ...
    @property
    def prediction_penalty(self) -> Number: ...
    @property
    def learning_rate(self) -> Number: ...


class Learners(eqx.Module):
    """Agents that are learning, each in a task of its own; ages are in updates."""

    agent: PredictingAgent
    transition: Float[Array, "task horizon state action state"]
    reward: Float[Array, "task horizon state action"]
    initial: Float[Array, "task state"]
    age: Int[Array, " task"]
    lifetime: Int[Array, " task"]

    @property
    def over(self) -> Bool[Array, " task"]:
        """Whose lifetime is over, as it is of those that have not begun."""
        return self.age >= self.lifetime

    def tasks(self, like: FiniteProcess) -> FiniteProcess:
        """The tasks that agents learn in, noisy if those of `like` are."""
        return dataclasses.replace(
            like, transition=self.transition, reward=self.reward, initial=self.initial
        )


class Unrolling(eqx.Module):
    """The rule, moments of Adam, and the agents that learn by the rule."""

    rule: UpdateRule
    optimiser: optax.OptState
    agents: Learners


def begin_unrolling(
    settings: UnrollSettings, problem: FiniteProblem, method: str, *, key: PRNGKeyArray
) -> Unrolling:
    """The state before any task was seen. **Arguments:** `method`: whose name a complaint bears."""
    tasks = problem.require_tasks(method)
    rule = UpdateRule(settings.num_predictions, settings.recurrent_size, key=key)
    agent = first_agent(problem.sizes, settings.num_predictions)
    sizes, none = (tasks, *problem.sizes), jnp.zeros(tasks, jnp.int32)
    agents = Learners(
        jax.tree.map(lambda x: jnp.zeros((tasks, *x.shape)), agent),
        jnp.zeros((*sizes, problem.states)),
        jnp.zeros(sizes),
        jnp.zeros((tasks, problem.states)),
        none,
        none,
    )
    return Unrolling(rule, begin(optax.adam(settings.learning_rate), rule), agents)


def fresh_learners(
    settings: UnrollSettings, agents: Learners, data: FiniteProcess, *, key: PRNGKeyArray
) -> Learners:
    """Agents that know nothing, as many as `agents`, in the tasks of the data."""
    ages = (settings.shortest_lifetime, settings.longest_lifetime)
    keys = jax.random.split(key, agents.age.shape[0])
    return Learners(
        jax.tree.map(jnp.zeros_like, agents.agent),
        data.transition,
        data.reward,
        data.initial,
        jnp.zeros_like(agents.age),
        jax.vmap(lambda key: drawn_lifetime(*ages, key=key))(keys),
    )


def improve_rule(
    settings: UnrollSettings, state: Unrolling, like: FiniteProcess, *, key: PRNGKeyArray
) -> tuple[Unrolling, Metrics]:
    """The rule after a step up the gradient through some updates of all agents, and they after.

    **Arguments:** `like`: tasks of that kind, see `Learners.tasks`.
    """
    agents = state.agents
    keys = jax.random.split(key, agents.age.shape[0])

    def loss(rule: UpdateRule):
        each = jax.vmap(
            lambda one, process, key: unrolled_loss(settings, rule, one, process, key=key)
        )
        losses, after, returns = each(agents, agents.tasks(like), keys)
        return jnp.mean(losses), (after, jnp.mean(returns))

    gradients, (agent, returns) = jax.grad(loss, has_aux=True)(state.rule)
    adam = optax.adam(settings.learning_rate)
    rule, optimiser = descend(adam, gradients, state.optimiser, state.rule)
    age = agents.age + settings.unroll_updates
    agents = dataclasses.replace(agents, agent=agent, age=age)
    found = {"return": returns, "entropy": entropy_of(agent.policy)}
    return Unrolling(rule, optimiser, agents), found


def unrolled_loss(
    settings: UnrollSettings,
    rule: UpdateRule,
    one: Learners,
    process: FiniteProcess,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], PredictingAgent, Float[Array, ""]]:
    """The loss of a rule for one agent; the agent after some updates, and its return."""

    def step(agent, given):
        passed, key = given
        age = one.age + passed
        return follow_rule(settings, rule, agent, process, age, one.lifetime, key=key)

    given = jnp.arange(settings.unroll_updates), jax.random.split(key, settings.unroll_updates)
    agent, outputs = jax.lax.scan(step, one.agent, given)
    returned = expected_return(process, jax.nn.softmax(agent.policy))
    gain = (
        returned
        + settings.policy_entropy_weight * entropy_of(agent.policy)
        + settings.prediction_entropy_weight * entropy_of(agent.prediction)
        - settings.policy_penalty * jnp.mean(outputs.policy**2)
        - settings.prediction_penalty * jnp.mean(outputs.prediction**2)
    )
    return -gain, agent, returned


def policies_by_rule(
    settings: UnrollSettings,
    rule: UpdateRule,
    process: FiniteProcess,
    lifetime: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "update horizon state action"]:
    """The policy of an agent after each of `lifetime` updates by the rule in one process."""
    agent = first_agent(process.reward.shape[-3:], settings.num_predictions)

    def step(rule, agent, process, passed, lifetime, key):
        return follow_rule(settings, rule, agent, process, passed, lifetime, key=key)[0]

    return policies_of_lifetime(
        step, rule, agent, process, lifetime, lambda agent: agent.policy, key=key
    )
