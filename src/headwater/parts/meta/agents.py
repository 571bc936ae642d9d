"""Agents with tables, for which update rules are learned, and the episodes that they play.

`follow_rule` takes the method itself for its `settings`.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.finite import FiniteProcess, draw_index
from headwater.core.records import Episodes
from headwater.networks.meta.update_rule import UpdateRule, clock_of

Number = float | Float[Array, ""]


@runtime_checkable
class RuleSettings(Protocol):
    """The hyper-parameters that `follow_rule` reads from a method."""

    @property
    def lifetime_scale(self) -> Number: ...
    @property
    def episodes_per_update(self) -> int: ...
    @property
    def prediction_weight(self) -> Number: ...
    @property
    def agent_learning_rate(self) -> Number: ...
    @property
    def prediction_learning_rate(self) -> Number: ...
    @property
    def max_gradient_norm(self) -> Number: ...


class PredictingAgent(eqx.Module):
    """Logits of a policy and of a categorical prediction, for each step and state."""

    policy: Float[Array, "horizon state action"]
    prediction: Float[Array, "horizon state prediction"]


class RuleOutputs(eqx.Module):
    """What a rule says of each step of some episodes: see `UpdateRule`."""

    policy: Float[Array, "episode step"]
    prediction: Float[Array, "episode step prediction"]


def first_agent(sizes: tuple[int, ...], predictions: int) -> PredictingAgent:
    """An agent that takes every action, and predicts everything, with equal probability.

    **Arguments:** `sizes`: horizon, states and actions.
    """
    horizon, states, actions = sizes
    return PredictingAgent(
        jnp.zeros((horizon, states, actions)), jnp.zeros((horizon, states, predictions))
    )


def play(
    process: FiniteProcess,
    policy: Float[Array, "horizon state action"],
    episodes: int,
    *,
    key: PRNGKeyArray,
) -> Episodes:
    """Episodes of a policy."""

    # All at once: drawing random numbers would be most of the time that an update takes.
    drawn = jax.random.uniform(key, (episodes, 1 + 3 * process.horizon))
    starts, draws = drawn[:, 0], drawn[:, 1:].reshape(episodes, process.horizon, 3)

    def one(start: Float[Array, ""], draws: Float[Array, "step 3"]) -> Episodes:
        def step(state, given):
            (chosen, paid, reached), probabilities, transition, reward = given
            action = draw_index(probabilities[state], chosen)
            mean = reward[state, action]
            earned = (paid < mean).astype(mean.dtype) if process.noisy else mean
            return draw_index(transition[state, action], reached), (state, action, earned)

        tables = (policy, process.transition, process.reward)
        first = draw_index(process.initial, start)
        last, (states, actions, rewards) = jax.lax.scan(
            step, first, (draws, *tables), unroll=process.horizon == 1
        )
        return Episodes(jnp.append(states, last), actions, rewards)

    return jax.vmap(one)(starts, draws)


def visited(
    table: Float[Array, "horizon state entry"], episodes: Episodes
) -> Float[Array, "episode step entry"]:
    """The row of a table at each step of the episodes."""
    steps = jnp.arange(table.shape[0])
    return table[steps[None], episodes.state[:, :-1]]


def taken(
    table: Float[Array, "horizon state action"], episodes: Episodes
) -> Float[Array, "episode step"]:
    """The entry of a table for each action that was taken."""
    rows = visited(table, episodes)
    action: Int[Array, "episode step 1"] = jnp.asarray(episodes.action)[..., None]
    return jnp.take_along_axis(rows, action, axis=-1)[..., 0]


def follow_rule(
    settings: RuleSettings,
    rule: UpdateRule,
    agent: PredictingAgent,
    process: FiniteProcess,
    passed: Int[Array, ""],
    lifetime: Int[Array, ""],
    *,
    key: PRNGKeyArray,
) -> tuple[PredictingAgent, RuleOutputs]:
    """The agent after some episodes and one step by the rule, and what the rule said.

    The step is up the mean of `π̂ log π(a|s) - α KL(y(s) ‖ ŷ)`, with a bounded norm.

    **Arguments:** `passed`, `lifetime`: updates of the agent so far and in all.
    """
    episodes = play(process, jax.nn.softmax(agent.policy), settings.episodes_per_update, key=key)
    probability = taken(jax.nn.softmax(agent.policy), episodes)
    prediction = visited(jax.nn.softmax(agent.prediction), episodes)
    clock = settings.lifetime_scale * clock_of(passed, lifetime)
    read = jax.vmap(rule, in_axes=(0, 0, 0, None))
    outputs = RuleOutputs(*read(jnp.asarray(episodes.reward), probability, prediction, clock))
    target = jax.nn.log_softmax(outputs.prediction)

    def gain(agent: PredictingAgent) -> Float[Array, ""]:
        chosen = taken(jax.nn.log_softmax(agent.policy), episodes)
        predicted = visited(jax.nn.log_softmax(agent.prediction), episodes)
        divergence = jnp.sum(jnp.exp(predicted) * (predicted - target), axis=-1)
        return jnp.mean(outputs.policy * chosen - settings.prediction_weight * divergence)

    gradient = bounded(jax.grad(gain)(agent), settings.max_gradient_norm)
    agent = PredictingAgent(
        agent.policy + settings.agent_learning_rate * gradient.policy,
        agent.prediction + settings.prediction_learning_rate * gradient.prediction,
    )
    return agent, outputs


def bounded(gradient, max_norm: float | Array):
    """The gradient, made shorter if its norm exceeds `max_norm`."""
    # The square root has no slope at zero, which a gradient of gradients would meet.
    squared = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))
    norm = jnp.sqrt(jnp.maximum(squared, 1e-12))
    scale = jnp.minimum(1.0, max_norm / norm)
    return jax.tree.map(lambda leaf: leaf * scale, gradient)


def entropy_of(logits: Float[Array, "*rows entry"]) -> Float[Array, ""]:
    """The mean entropy of rows of logits, in nats."""
    log = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.sum(jnp.exp(log) * log, axis=-1))


def drawn_lifetime(
    shortest: int | Array, longest: int | Array, *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """A lifetime whose logarithm is uniform between those of the two."""
    low, high = (jnp.log(jnp.asarray(end, jnp.float32)) for end in (shortest, longest))
    drawn = jnp.exp(low + jax.random.uniform(key) * (high - low))
    return jnp.round(drawn).astype(jnp.int32)
