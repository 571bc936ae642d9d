"""Action distributions, batched over leading axes."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.ops.control.noise import normal

_EDGE = 1.0 - 1e-5
"""Logged actions are clipped to ±this before `atanh`: the density of a squashed normal is
unbounded at the edge of the box."""

Actions = Float[Array, "*batch action"] | Int[Array, "*batch"]


class AbstractDistribution(eqx.Module):
    """A distribution over canonical actions for each row of a batch."""

    @abc.abstractmethod
    def mode(self) -> Actions:
        """The greedy action."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray) -> tuple[Actions, Float[Array, "*batch"]]:
        """One action and its log-density."""

    @abc.abstractmethod
    def log_density(self, action: Actions) -> Float[Array, "*batch"]:
        """Log-density (log-probability) of `action`."""

    @abc.abstractmethod
    def expectation(
        self, key: PRNGKeyArray
    ) -> tuple[Actions, Float[Array, "candidate *batch"], Float[Array, "candidate *batch"]]:
        """Actions, their log-densities and weights whose weighted sum estimates an expectation.

        Continuous: one sample of weight 1. Discrete: every action with its probability, so that the
        expectation is exact. All three have a leading `candidate` axis.
        """


class Normal(AbstractDistribution):
    """Independent normals; samples are clipped to the box [-1, 1], densities are not corrected."""

    mean: Float[Array, "*batch action"]
    log_std: Float[Array, "*batch action"]

    def mode(self):
        return jnp.clip(self.mean, -1.0, 1.0)

    def sample(self, key):
        noise = normal(key, self.mean.shape)
        action = self.mean + jnp.exp(self.log_std) * noise
        return jnp.clip(action, -1.0, 1.0), _normal_log_density(noise, self.log_std)

    def log_density(self, action):
        return _normal_log_density((action - self.mean) * jnp.exp(-self.log_std), self.log_std)

    def expectation(self, key):
        return _single(self, key)


class TanhNormal(AbstractDistribution):
    """Independent normals squashed by tanh into the box [-1, 1]."""

    mean: Float[Array, "*batch action"]
    log_std: Float[Array, "*batch action"]

    def mode(self):
        return jnp.tanh(self.mean)

    def sample(self, key):
        noise = normal(key, self.mean.shape)
        raw = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(raw), _normal_log_density(noise, self.log_std) - _squash_log_slope(raw)

    def log_density(self, action):
        raw = jnp.arctanh(jnp.clip(action, -_EDGE, _EDGE))
        noise = (raw - self.mean) * jnp.exp(-self.log_std)
        return _normal_log_density(noise, self.log_std) - _squash_log_slope(raw)

    def expectation(self, key):
        return _single(self, key)


class Categorical(AbstractDistribution):
    """Finitely many actions with the given logits."""

    logits: Float[Array, "*batch action"]

    def mode(self):
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def sample(self, key):
        action = jax.random.categorical(key, self.logits).astype(jnp.int32)
        return action, self.log_density(action)

    def log_density(self, action):
        log_probability = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probability, action[..., None], axis=-1)[..., 0]

    def expectation(self, key):
        count = self.logits.shape[-1]
        log_probability = jnp.moveaxis(jax.nn.log_softmax(self.logits), -1, 0)
        batch = log_probability.shape[1:]
        every = jnp.arange(count, dtype=jnp.int32).reshape(count, *(1 for _ in batch))
        actions = jnp.broadcast_to(every, (count, *batch))
        return actions, log_probability, jnp.exp(log_probability)


def divergence_from(
    policy: AbstractDistribution, anchor: AbstractDistribution
) -> Float[Array, "*batch"]:
    """`KL(policy || anchor)` in nats, of two policies of the same kind.

    Of squashed normals it is that of the normals: the squashing is the same. Of clipped ones, too,
    though clipping is not undone.
    """
    if isinstance(policy, Categorical) and isinstance(anchor, Categorical):
        own = jax.nn.log_softmax(policy.logits)
        return jnp.sum(jnp.exp(own) * (own - jax.nn.log_softmax(anchor.logits)), axis=-1)
    assert isinstance(policy, Normal | TanhNormal) and isinstance(anchor, Normal | TanhNormal)
    wider = policy.log_std - anchor.log_std
    away = (policy.mean - anchor.mean) * jnp.exp(-anchor.log_std)
    return jnp.sum(0.5 * (jnp.exp(2.0 * wider) + away**2 - 1.0) - wider, axis=-1)


def _single(distribution: AbstractDistribution, key):
    action, log_density = distribution.sample(key)
    return action[None], log_density[None], jnp.ones_like(log_density)[None]


def _normal_log_density(noise, log_std):
    return jnp.sum(-0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi), axis=-1)


def _squash_log_slope(raw):
    # log(1 - tanh(x)²) written so that it does not underflow for large |x|.
    return jnp.sum(2.0 * (math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw)), axis=-1)
