"""The step of a soft actor-critic whose critics are kept from agreeing: EDAC's and RAVL's.

A function takes the method itself for its `settings`.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.method import Metrics
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import Critic
from headwater.networks.mlp import Ensemble
from headwater.ops.control.bellman import ensemble_error
from headwater.ops.control.ensemble import slope_similarity
from headwater.parts.soft_actor_critic import (
    SoftActorCritic,
    SoftSettings,
    begin_soft,
    improve_critics,
    improve_temperature_first,
    soft_target,
)


@runtime_checkable
class DiverseSettings(SoftSettings, Protocol):
    """The hyper-parameters that the step reads from a method."""

    @property
    def diversity_weight(self) -> float | Float[Array, ""]: ...


def begin_diverse(
    settings: DiverseSettings, problem: Spaces, *, key: PRNGKeyArray
) -> SoftActorCritic:
    """The state before any data. Raises `SpecificationError` for discrete actions."""
    problem.require_continuous(type(settings).__name__)
    return begin_soft(
        settings,
        problem,
        key=key,
        actor_start={"log_std_range": (-5.0, 2.0), "last_scale": 1e-3, "bias": 0.1},
        critic_start={"last_scale": 3e-3, "bias": 0.1},
    )


def diverse_step(
    settings: DiverseSettings, state: SoftActorCritic, data: Transitions, *, key: PRNGKeyArray
) -> tuple[SoftActorCritic, Metrics]:
    """One step of the temperature, then one of the actor, then one of the critics.

    **Arguments:** `data`: as it came from the source.
    """
    data = state.normaliser.transitions(data)
    temperature_key, actor_key, critic_key = jax.random.split(key, 3)
    state, improved = improve_temperature_first(
        settings,
        state,
        data.observation,
        reduction="min",
        temperature_key=temperature_key,
        actor_key=actor_key,
    )
    target = soft_target(settings, state, data, members=settings.num_critics, key=critic_key)

    def loss(ensemble: Ensemble):
        prediction, slopes = _values_and_slopes(ensemble, data.observation, data.action)
        error = ensemble_error(prediction, target)
        similarity = jnp.mean(slope_similarity(slopes))
        metrics = {"critic_loss": error, "q": jnp.mean(prediction), "similarity": similarity}
        return error + settings.diversity_weight * similarity, metrics

    state, learned = improve_critics(settings, state, loss)
    return state, {**learned, **improved}


def _values_and_slopes(ensemble: Ensemble, observation: Array, action: Array):
    """Every critic's values and their derivatives by the action, from one pass."""

    def one(critic: eqx.Module):
        assert isinstance(critic, Critic)
        values, pull_back = jax.vjp(lambda a: critic(observation, a), action)
        return values, pull_back(jnp.ones_like(values))[0]

    return jax.vmap(one)(ensemble.stacked)
