"""Critics of several rewards at once, each of a policy of its own: shared by offline methods."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Action, AuxiliaryTransitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    GaussianActor,
    TanhGaussianActor,
    stochastic_actor,
)
from headwater.networks.control.critics import Critic, critics
from headwater.networks.distributions import Categorical, Normal, TanhNormal
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.parts.logged_values import LoggedValueSettings, begin_values

Actor = CategoricalActor | TanhGaussianActor | GaussianActor
Policies = Callable[[Float[Array, "batch observation"]], Categorical | Normal | TanhNormal]
"""From observations to the policies whose values the critics are, along a leading axis."""

_SMALLEST_SHARE = 1e-6
"""Of the mean square: what varies less does not vary."""


class SeveralRewardSettings(LoggedValueSettings, Protocol):
    """The hyper-parameters that critics of several rewards read from a method."""

    @property
    def auxiliary_rewards(self) -> tuple[str, ...]: ...
    @property
    def hidden_sizes(self) -> tuple[int, ...]: ...
    @property
    def learning_rate(self) -> float | Float[Array, ""]: ...
    @property
    def polyak_rate(self) -> float | Float[Array, ""]: ...


class SeveralCritics(eqx.Module):
    """One critic for each reward, the main one first, their targets, and the units of each.

    **Arguments:** `networks`, `targets`: `[reward]`; `optimiser`: moments of Adam; `normaliser`:
    of observations and of the main reward; `mean`, `square`: of each auxiliary reward so far;
    `batches`: that they are from.
    """

    networks: Ensemble
    targets: Ensemble
    optimiser: optax.OptState
    normaliser: Normaliser
    mean: Float[Array, " auxiliary"]
    square: Float[Array, " auxiliary"]
    batches: Float[Array, ""]

    def main_value(self, observation: Array, action: Array) -> Array:
        """The value of an action in the main reward, in its units."""
        value = self.networks(self.normaliser(observation), action)[0]
        return self.normaliser.in_units_of_reward(value)


def begin_actor(problem: Spaces, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray) -> Actor:
    """A policy: a softmax, or a normal whose spread is the same everywhere."""
    return stochastic_actor(problem, hidden_sizes, key=key, spread="shared", squash_mean=False)


def begin_several_critics(
    settings: SeveralRewardSettings, problem: Spaces, *, key: PRNGKeyArray
) -> SeveralCritics:
    """Critics before any data. Raises `SpecificationError` if there is no auxiliary reward."""
    names = settings.auxiliary_rewards
    if not names or len(set(names)) < len(names):
        raise SpecificationError(
            f"auxiliary_rewards = {list(names)}: name at least one column of the log, each once"
        )
    normaliser, level = begin_values(settings, problem)
    networks = critics(problem, settings.hidden_sizes, 1 + len(names), key=key)
    bias = lambda ensemble: ensemble.stacked.network.biases[-1]
    networks = eqx.tree_at(bias, networks, bias(networks).at[0].add(level))
    return SeveralCritics(
        networks=networks,
        targets=networks,
        optimiser=begin(optax.adam(settings.learning_rate), networks),
        normaliser=normaliser,
        mean=jnp.zeros(len(names)),
        square=jnp.zeros(len(names)),
        batches=jnp.zeros(()),
    )


def fit_critics(
    settings: SeveralRewardSettings,
    state: SeveralCritics,
    data: AuxiliaryTransitions,
    policies: Policies,
    *,
    key: PRNGKeyArray,
    prices: Float[Array, " auxiliary"] | None = None,
) -> tuple[SeveralCritics, AuxiliaryTransitions, dict[str, Float[Array, ""]]]:
    """One step of every critic towards the values of its policy.

    **Arguments:** `prices`: at which the others are added to the main reward, in all their units;
    by default it stands alone.

    **Returns:** the critics, the data in the units that they count in, and metrics. Raises
    `SpecificationError` if the data has another number of auxiliary rewards than `settings`.
    """
    state, data = _in_units(settings, state, data)
    if prices is not None:
        data = dataclasses.replace(data, reward=data.reward + data.auxiliary @ prices)
    rewards = jnp.concatenate([data.reward[None], data.auxiliary.T])
    following = policy_values(
        state.targets, policies(data.next_observation), data.next_observation, key=key
    )
    terminal = jnp.broadcast_to(data.terminal[None], rewards.shape)
    target = backup(rewards, settings.discount, terminal, following)

    def loss(networks: Ensemble):
        prediction = networks(data.observation, data.action)
        error = jnp.mean((prediction - target) ** 2, axis=1)
        return jnp.sum(error), (error[0], jnp.sum(error[1:]), jnp.mean(prediction[0]))

    gradients, (main, auxiliary, q) = jax.grad(loss, has_aux=True)(state.networks)
    networks, optimiser = descend(
        optax.adam(settings.learning_rate), gradients, state.optimiser, state.networks
    )
    state = dataclasses.replace(
        state,
        networks=networks,
        targets=polyak(state.targets, networks, settings.polyak_rate),
        optimiser=optimiser,
    )
    return state, data, {"critic_loss": main, "auxiliary_critic_loss": auxiliary, "q": q}


def policy_values(
    networks: Ensemble, policies: Categorical | Normal | TanhNormal, observation: Array, *, key
) -> Float[Array, "reward batch"]:
    """What each critic expects of its own policy: exactly, or for continuous actions by one."""

    def one(critic, policy):
        assert isinstance(critic, Critic)
        if isinstance(policy, Categorical):
            return jnp.sum(jax.nn.softmax(policy.logits) * critic.values(observation), axis=-1)
        return critic(observation, policy.sample(key)[0])

    return jax.vmap(one)(networks.stacked, policies)


def advantages(
    networks: Ensemble, policies: Policies, observation: Array, action: Action, *, key: PRNGKeyArray
) -> Float[Array, "reward batch"]:
    """How much better than its policy each critic thinks that `action` is."""
    own = policy_values(
        networks, policies(observation), observation, key=jax.random.fold_in(key, 1)
    )
    return networks(observation, action) - own


def each_policy(actors: Ensemble, observation: Array) -> Categorical | Normal | TanhNormal:
    """The policies of several actors, along a leading axis."""

    def one(actor):
        assert isinstance(actor, Actor)
        return actor(observation)

    return jax.vmap(one)(actors.stacked)


def log_densities(
    actors: Ensemble, observation: Array, action: Action
) -> Float[Array, "actor batch"]:
    """How likely `action` is under each of several actors, in logarithms."""

    def one(actor):
        assert isinstance(actor, Actor)
        return actor(observation).log_density(action)

    return jax.vmap(one)(actors.stacked)


def together(first, others):
    """A policy and several others as one, along a leading axis."""
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, others)


def _in_units(
    settings: SeveralRewardSettings, state: SeveralCritics, data: AuxiliaryTransitions
) -> tuple[SeveralCritics, AuxiliaryTransitions]:
    """What has been seen of the auxiliary rewards, and the data in the critics' units."""
    names = settings.auxiliary_rewards
    if data.auxiliary.shape[-1] != len(names):
        raise SpecificationError(
            f"the data has {data.auxiliary.shape[-1]} auxiliary rewards, but "
            f"auxiliary_rewards names {len(names)}: {', '.join(names)}"
        )
    batches = state.batches + 1.0
    mean = state.mean + (jnp.mean(data.auxiliary, axis=0) - state.mean) / batches
    square = state.square + (jnp.mean(data.auxiliary**2, axis=0) - state.square) / batches
    variance = square - mean**2
    varied = (variance > _SMALLEST_SHARE * square) & (variance > jnp.finfo(jnp.float32).tiny)
    scale = jnp.where(varied, jax.lax.rsqrt(jnp.where(varied, variance, 1.0)), 1.0)
    normalise = state.normaliser
    data = dataclasses.replace(
        data,
        observation=normalise(data.observation),
        next_observation=normalise(data.next_observation),
        reward=data.reward * normalise.reward_scale,
        auxiliary=data.auxiliary * jnp.broadcast_to(scale[None], data.auxiliary.shape),
    )
    return dataclasses.replace(state, mean=mean, square=square, batches=batches), data
