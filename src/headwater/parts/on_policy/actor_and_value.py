"""A policy and the values of what it observes, as on-policy methods learn them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.method import AbstractActorCritic, Agent
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import DeterministicActor, stochastic_actor
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin
from headwater.parts.soft_actor_critic import Actor
from headwater.parts.streaming import RunningMoments

_START: dict[str, Any] = {"activation": "tanh", "initialiser": "orthogonal"}
"""Of both networks."""


class ActorAndValue(eqx.Module):
    """Policy, value, moments of the optimiser, the policy that it began with, and scales.

    **Arguments:** `returns`: moments of the returns so far, in whose units `critic` counts.
    """

    actor: Actor
    critic: MLP
    prior: Actor
    optimiser: optax.OptState
    normaliser: Normaliser
    returns: RunningMoments
    updates: Int[Array, ""]

    def value(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """Of standardised observations, in units of reward."""
        # Before any return was seen, the moments are those of what is standardised already.
        return self.returns.mean + self.returns.deviation * self.critic(observation)[..., 0]


def begin_on_policy(
    problem: Spaces,
    hidden_sizes: tuple[int, ...],
    optimiser: optax.GradientTransformation,
    normalise_observations: bool,
    *,
    learned: Agent | None = None,
    key: PRNGKeyArray,
) -> ActorAndValue | None:
    """The state before any data.

    **Arguments:** `optimiser`: of policy and value together; `learned`: whose policy, and scale of
    observations, it begins with. `None` if that has no stochastic policy.
    """
    actor_key, critic_key = jax.random.split(key)
    if learned is None:
        bounds = {"log_std_range": (-5.0, 2.0), "last_scale": 0.01}
        actor = stochastic_actor(problem, hidden_sizes, key=actor_key, **bounds, **_START)
        normaliser = Normaliser(problem, normalise_observations)
    else:
        if not isinstance(learned.method, AbstractActorCritic):
            return None
        parts = learned.method.parts(learned.state)
        if isinstance(parts.actor, DeterministicActor):
            return None
        actor, normaliser = parts.actor, parts.normaliser.unscaled()
    critic = MLP(problem.observation_size, 1, hidden_sizes, key=critic_key, **_START)
    return ActorAndValue(
        actor=actor,
        critic=critic,
        prior=actor,
        optimiser=begin(optimiser, (actor, critic)),
        normaliser=normaliser,
        returns=RunningMoments(()),
        updates=jnp.zeros((), jnp.int32),
    )
