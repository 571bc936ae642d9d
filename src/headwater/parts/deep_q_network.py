"""The state that deep Q-learning and its conservative kind share, and the steps of both.

A step takes the method itself for its `settings`: each of the two has the hyper-parameters that
`DeepQSettings` lists, as fields with defaults of its own.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import Critic, raised
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, double_value
from headwater.ops.control.exploration import epsilon_greedy, epsilon_greedy_log_probability, greedy
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.parts.logged_values import LoggedValueSettings, begin_values

Metrics = dict[str, Float[Array, ""]]
Number = float | Float[Array, ""]


class DeepQNetwork(eqx.Module):
    """The critic, its target, optimiser moments and the scale of observations, if it is known."""

    critic: Critic
    target: Critic
    optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


@runtime_checkable
class DeepQSettings(LoggedValueSettings, Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def learning_rate(self) -> Number: ...
    @property
    def polyak_rate(self) -> Number: ...
    @property
    def target_update_interval(self) -> int | Int[Array, ""]: ...
    @property
    def double_q(self) -> bool: ...
    @property
    def hidden_sizes(self) -> tuple[int, ...]: ...


def begin_deep_q(settings: DeepQSettings, problem: Spaces, *, key: PRNGKeyArray) -> DeepQNetwork:
    """The state before any data: the target is equal to the critic."""
    normaliser, level = begin_values(settings, problem)
    critic = raised(Critic(problem, settings.hidden_sizes, key=key), level)
    return DeepQNetwork(
        critic=critic,
        target=critic,
        optimiser=begin(optax.adam(settings.learning_rate), critic),
        normaliser=normaliser,
        step=jnp.zeros((), jnp.int32),
    )


def deep_q_target(
    settings: DeepQSettings, state: DeepQNetwork, data: Transitions
) -> Float[Array, " batch"]:
    """`r + γ(1-d)·Q̄(s', a')` with the action that the critic, or the target, likes best."""
    judging = state.target.values(data.next_observation)
    choosing = state.critic.values(data.next_observation) if settings.double_q else judging
    next_value = double_value(choosing, judging)
    return backup(data.reward, settings.discount, data.terminal, next_value)


def improve_deep_q(
    settings: DeepQSettings,
    state: DeepQNetwork,
    loss: Callable[[Critic], tuple[Float[Array, ""], Metrics]],
) -> tuple[DeepQNetwork, Metrics]:
    """One step of the critic down `loss`, and at times one of the target."""
    gradients, metrics = jax.grad(loss, has_aux=True)(state.critic)
    critic, optimiser = descend(
        optax.adam(settings.learning_rate), gradients, state.optimiser, state.critic
    )
    step = state.step + 1
    target = jax.lax.cond(
        step % settings.target_update_interval == 0,
        lambda: polyak(state.target, critic, settings.polyak_rate),
        lambda: state.target,
    )
    return DeepQNetwork(critic, target, optimiser, state.normaliser, step), metrics


def act_epsilon_greedily(
    state: DeepQNetwork, observation: Array, epsilon: Number, *, key: PRNGKeyArray, explore: bool
) -> Int[Array, ""]:
    """The action of largest value, or if `explore` with probability `epsilon` any."""
    values = state.critic.values(state.normaliser(observation))
    return epsilon_greedy(values, epsilon, key=key) if explore else greedy(values)


def epsilon_greedy_likelihood(
    state: DeepQNetwork, observation: Array, action: Array, epsilon: Number
) -> Float[Array, ""]:
    """Log-probability of `action` when exploring with `epsilon`."""
    values = state.critic.values(state.normaliser(observation))
    return epsilon_greedy_log_probability(values, action, epsilon)
