"""Networks that say where actions lead: an ensemble of normal distributions over changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Action, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP, Ensemble

_TINY = 1e-8
_FURTHEST = 10.0
"""Standardised observations are cut off there, as the authors of RAVL do."""
_LOG_VARIANCE = (-10.0, 0.5)
"""Bounds of the log-variance at first."""


class DynamicsOutputs(eqx.Module):
    """What every member says: changes and reward in standardised units, and log-odds of an end."""

    mean: Float[Array, "member *batch predicted"]
    log_variance: Float[Array, "member *batch predicted"]
    end: Float[Array, "member *batch"]


class DynamicsNetworks(eqx.Module):
    """The members, and the bounds of the log-variance, which are learned as well."""

    members: Ensemble
    lowest: Float[Array, " predicted"]
    highest: Float[Array, " predicted"]

    def __init__(
        self, problem: Spaces, num_members: int, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray
    ):
        predicted = problem.observation_size + 1

        def member(key: PRNGKeyArray) -> MLP:
            return MLP(
                problem.observation_size + problem.action_size,
                2 * predicted + 1,
                hidden_sizes,
                key=key,
                activation="silu",
                initialiser="lecun",
            )

        self.members = Ensemble(member, num_members, key=key)
        self.lowest, self.highest = (
            jnp.full(predicted, bound, jnp.float32) for bound in _LOG_VARIANCE
        )

    def __call__(self, observation: Float[Array, "*batch size"], action: Action) -> DynamicsOutputs:
        """**Arguments:** `observation`: standardised."""
        seen = jnp.clip(observation, -_FURTHEST, _FURTHEST)
        if jnp.issubdtype(action.dtype, jnp.integer):
            members = jax.tree.leaves(self.members)[0]
            action = jax.nn.one_hot(action, members.shape[1] - observation.shape[-1])
        found = self.members(jnp.concatenate([seen, action], axis=-1))
        mean, raw = jnp.split(found[..., :-1], 2, axis=-1)
        low, high = (jnp.broadcast_to(b, raw.shape) for b in (self.lowest, self.highest))
        bounded = high - jax.nn.softplus(high - raw)
        return DynamicsOutputs(mean, low + jax.nn.softplus(bounded - low), found[..., -1])

    @property
    def width_of_bounds(self) -> Float[Array, ""]:
        """How far the bounds of the log-variance are apart, over all that is predicted."""
        return jnp.sum(self.highest) - jnp.sum(self.lowest)

    @property
    def squared_weights(self) -> Float[Array, ""]:
        """The sum of all squared weights; biases do not count."""
        weights = [w for w in jax.tree.leaves(self.members) if w.ndim == 3]
        return jnp.sum(jnp.stack([jnp.sum(w**2) for w in weights]))


def squared_errors_and_losses(
    found: DynamicsOutputs, data: Transitions
) -> tuple[Float[Array, "member batch predicted"], Float[Array, "member batch"]]:
    """Squared errors of the means, and twice the negative log-likelihood with that of the ends.

    **Arguments:** `data`: standardised; what stands behind a terminal step is not looked at.
    """
    known = ~data.terminal[:, None]
    change = jnp.where(known, data.next_observation - data.observation, 0.0)
    target = jnp.concatenate([change, data.reward[:, None]], axis=-1)[None]
    read = jnp.concatenate([jnp.broadcast_to(known, change.shape), jnp.ones_like(known)], -1)[None]
    error = read * (found.mean - target) ** 2
    likely = error * jnp.exp(-found.log_variance) + read * found.log_variance
    terminal = jnp.broadcast_to(data.terminal[None].astype(jnp.float32), found.end.shape)
    return error, jnp.mean(likely, axis=-1) + optax.sigmoid_binary_cross_entropy(
        found.end, terminal
    )


def log_disagreement(mean: Float[Array, "elite *batch predicted"]) -> Float[Array, "*batch"]:
    """The logarithm of how far means are apart, in standardised units."""
    variance = jnp.mean(jnp.var(mean, axis=0), axis=-1)
    return 0.5 * jnp.log(variance + _TINY)
