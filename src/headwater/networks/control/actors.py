"""Policy networks: an observation in, an action distribution out."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.fields import check_choice
from headwater.core.spaces import Spaces
from headwater.networks.distributions import Categorical, Normal, TanhNormal
from headwater.networks.mlp import MLP
from headwater.ops.control.noise import normal


class CategoricalActor(eqx.Module):
    """A softmax over discrete actions."""

    network: MLP

    def __init__(
        self, spaces: Spaces, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray, **options
    ):
        self.network = MLP(
            spaces.observation_size, spaces.action_size, hidden_sizes, key=key, **options
        )

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Categorical:
        return Categorical(self.network(observation))


class TanhGaussianActor(eqx.Module):
    """A squashed normal whose mean and spread both depend on the observation.

    **Arguments:** `log_std_range`: bounds of the log-deviation; `log_std_offset`: added to what the
    network says of it, so that an actor can start out narrower.
    """

    network: MLP
    log_std_range: tuple[float, float] = eqx.field(static=True)
    log_std_offset: float = eqx.field(static=True)

    def __init__(
        self,
        spaces: Spaces,
        hidden_sizes: tuple[int, ...],
        *,
        key: PRNGKeyArray,
        log_std_range: tuple[float, float] = (-20.0, 2.0),
        log_std_offset: float = 0.0,
        **options,
    ):
        spaces.require_continuous("a Gaussian policy")
        outputs = 2 * spaces.action_size
        self.network = MLP(spaces.observation_size, outputs, hidden_sizes, key=key, **options)
        self.log_std_range, self.log_std_offset = log_std_range, log_std_offset

    def __call__(self, observation: Float[Array, "*batch observation"]) -> TanhNormal:
        mean, log_std = jnp.split(self.network(observation), 2, axis=-1)
        return TanhNormal(mean, jnp.clip(log_std + self.log_std_offset, *self.log_std_range))


class GaussianActor(eqx.Module):
    """A normal whose spread is learned but the same in every observation."""

    network: MLP
    log_std: Float[Array, " action"]
    log_std_range: tuple[float, float] = eqx.field(static=True)
    squash_mean: bool = eqx.field(static=True)

    def __init__(
        self,
        spaces: Spaces,
        hidden_sizes: tuple[int, ...],
        *,
        key: PRNGKeyArray,
        log_std_range: tuple[float, float] = (-20.0, 2.0),
        squash_mean: bool = True,
        **options,
    ):
        spaces.require_continuous("a Gaussian policy")
        size = spaces.action_size
        self.network = MLP(spaces.observation_size, size, hidden_sizes, key=key, **options)
        self.log_std = jnp.zeros(size)
        self.log_std_range, self.squash_mean = log_std_range, squash_mean

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Normal:
        mean = self.network(observation)
        mean = jnp.tanh(mean) if self.squash_mean else mean
        log_std = jnp.clip(self.log_std, *self.log_std_range)
        return Normal(mean, jnp.broadcast_to(log_std, mean.shape))


class DeterministicActor(eqx.Module):
    """One action, squashed into the box by tanh."""

    network: MLP

    def __init__(
        self, spaces: Spaces, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray, **options
    ):
        spaces.require_continuous("a deterministic policy")
        self.network = MLP(
            spaces.observation_size, spaces.action_size, hidden_sizes, key=key, **options
        )

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch action"]:
        return jnp.tanh(self.network(observation))


def stochastic_actor(
    spaces: Spaces,
    hidden_sizes: tuple[int, ...],
    *,
    key: PRNGKeyArray,
    spread: Literal["state", "shared"] = "state",
    log_std_range: tuple[float, float] = (-20.0, 2.0),
    squash_mean: bool = True,
    **options,
) -> CategoricalActor | TanhGaussianActor | GaussianActor:
    """A stochastic policy for the kind of action that `spaces` has.

    **Arguments:** `spread`: a spread of its own in each observation (a squashed normal) or one
    shared by all (a plain normal, its mean squashed if `squash_mean`); `options` go to the `MLP`.
    """
    check_choice(spread, ("state", "shared"), "spread")
    if spaces.discrete:
        return CategoricalActor(spaces, hidden_sizes, key=key, **options)
    if spread == "state":
        return TanhGaussianActor(
            spaces, hidden_sizes, key=key, log_std_range=log_std_range, **options
        )
    return GaussianActor(
        spaces,
        hidden_sizes,
        key=key,
        log_std_range=log_std_range,
        squash_mean=squash_mean,
        **options,
    )


def choose(actor, observation: Array, *, key: PRNGKeyArray, explore: bool) -> Array:
    """The action of a stochastic `actor`: sampled if `explore`, its mode if not."""
    distribution = actor(observation)
    return distribution.sample(key)[0] if explore else distribution.mode()


def choose_near(
    actor: DeterministicActor,
    observation: Array,
    *,
    key: PRNGKeyArray,
    explore: bool,
    noise: float | Array,
) -> Array:
    """The action of a deterministic `actor`, with normal noise clipped to the box if `explore`."""
    action = actor(observation)
    if not explore:
        return action
    return jnp.clip(action + noise * normal(key, action.shape), -1.0, 1.0)
