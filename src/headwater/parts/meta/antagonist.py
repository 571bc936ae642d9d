"""Advantage actor-critic with tables: what agents of a learned rule are compared with.

Functions take the method itself for their `settings`.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.finite import FiniteProcess
from headwater.ops.control.advantages import generalised_advantages
from headwater.parts.meta.agents import Number, bounded, entropy_of, play, taken, visited


@runtime_checkable
class AntagonistSettings(Protocol):
    """The hyper-parameters that are read from a method."""

    @property
    def episodes_per_update(self) -> int: ...
    @property
    def gae_lambda(self) -> Number: ...
    @property
    def entropy_weight(self) -> Number: ...
    @property
    def antagonist_learning_rate(self) -> Number: ...
    @property
    def value_learning_rate(self) -> Number: ...
    @property
    def max_gradient_norm(self) -> Number: ...


class Antagonist(eqx.Module):
    """Logits of a policy and expected rewards to come, for each step and state."""

    policy: Float[Array, "*task horizon state action"]
    value: Float[Array, "*task horizon state"]


def first_antagonist(sizes: tuple[int, ...]) -> Antagonist:
    """One that takes every action with equal probability, and expects nothing.

    **Arguments:** `sizes`: horizon, states and actions.
    """
    return Antagonist(jnp.zeros(sizes), jnp.zeros(sizes[:-1]))


def learn_by_advantages(
    settings: AntagonistSettings,
    antagonist: Antagonist,
    process: FiniteProcess,
    *,
    key: PRNGKeyArray,
) -> Antagonist:
    """After some episodes and one step, by advantages that are standardised over all of them.

    Policy and values take a step of bounded norm each.
    """
    policy = jax.nn.softmax(antagonist.policy)
    episodes = play(process, policy, settings.episodes_per_update, key=key)
    expected = visited(antagonist.value[..., None], episodes)[..., 0]
    following = jnp.pad(expected[:, 1:], ((0, 0), (0, 1)))
    surprise = jnp.asarray(episodes.reward) + following - expected
    goes_on = jnp.ones_like(surprise.T, dtype=bool)
    advantage = generalised_advantages(surprise.T, goes_on, settings.gae_lambda).T
    target = expected + advantage
    scaled = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)

    def gain(logits: Float[Array, "horizon state action"]) -> Float[Array, ""]:
        chosen = taken(jax.nn.log_softmax(logits), episodes)
        entropy = entropy_of(visited(logits, episodes))
        return jnp.mean(chosen * scaled) + settings.entropy_weight * entropy

    def error(value: Float[Array, "horizon state"]) -> Float[Array, ""]:
        return jnp.mean((target - visited(value[..., None], episodes)[..., 0]) ** 2)

    up = bounded(jax.grad(gain)(antagonist.policy), settings.max_gradient_norm)
    down = bounded(jax.grad(error)(antagonist.value), settings.max_gradient_norm)
    return Antagonist(
        antagonist.policy + settings.antagonist_learning_rate * up,
        antagonist.value - settings.value_learning_rate * down,
    )


def advance(
    settings: AntagonistSettings,
    antagonist: Antagonist,
    process: FiniteProcess,
    updates: int,
    *,
    key: PRNGKeyArray,
) -> Antagonist:
    """After so many updates by advantages."""

    def step(antagonist, key):
        return learn_by_advantages(settings, antagonist, process, key=key), None

    return jax.lax.scan(step, antagonist, jax.random.split(key, updates))[0]
