"""A transformer neural process with a head that says where to evaluate next."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.networks.attention import AttentionBlock, standardised
from headwater.networks.mlp import MLP
from headwater.ops.products import product

_WAVES = 6
"""How many waves describe each component, the longest twice as long as the unit cube."""
_WIDEST = 4.0
"""Histograms of values go so many standard deviations up and down."""


class History(NamedTuple):
    """The evaluations of each task so far, in no order, and what else is known of it.

    **Arguments:** `known`: which rows there are; `progress`: the best value so far and the share of
    the budget that is spent.
    """

    point: Float[Array, "*batch row component"]
    value: Float[Array, "*batch row"]
    known: Bool[Array, "*batch row"]
    progress: Float[Array, "*batch 2"]


def history_of(
    point: Float[Array, "*batch row component"],
    value: Float[Array, "*batch row"],
    known: Bool[Array, "*batch row"],
    budget: int,
) -> History:
    """The history of these rows, with as much progress as they make within `budget`."""
    value = jnp.where(known, value, 0.0)
    best = jnp.max(jnp.where(known, value, -_WIDEST), axis=-1)
    spent = jnp.minimum(jnp.sum(known, axis=-1) / budget, 1.0)
    return History(point, value, known, jnp.stack([best, spent], axis=-1))


def bucket_of(value: Float[Array, "*batch"], buckets: int) -> Int[Array, "*batch"]:
    """In which bucket of the histogram a value lies; those beyond its ends are in the last ones."""
    place = jnp.floor((value + _WIDEST) / (2.0 * _WIDEST) * buckets)
    return jnp.clip(place, 0, buckets - 1).astype(jnp.int32)


def expected_value(logits: Float[Array, "*batch bucket"]) -> Float[Array, "*batch"]:
    """The mean of a histogram."""
    buckets = logits.shape[-1]
    middle = _WIDEST * (2.0 * (jnp.arange(buckets) + 0.5) / buckets - 1.0)
    return jax.nn.softmax(logits, axis=-1) @ middle


class AcquisitionProcess(eqx.Module):
    """From evaluations to what is believed of further points, and what to evaluate these is worth.

    All tokens attend to the evaluations that there are and to one that stands for the budget;
    candidates attend to no other candidate, and nothing says in which order evaluations were made.

    **Arguments:** `size`: components of a point; `width`: of a token; `layers`, `heads`; `buckets`:
    of the histogram of a value.
    """

    place: MLP
    value: Float[Array, " width"]
    budget: MLP
    blocks: AttentionBlock
    histogram: MLP
    acquisition: MLP
    preference: Float[Array, " width"]
    critic: MLP

    def __init__(
        self, size: int, width: int, layers: int, heads: int, buckets: int, *, key: PRNGKeyArray
    ):
        keys = jax.random.split(key, 7)
        self.place = MLP((1 + 2 * _WAVES) * size, width, (), key=keys[0])
        self.value = jax.random.normal(keys[1], (width,))
        self.budget = MLP(2, width, (), key=keys[2])
        # Stacked, as a loop over them is compiled in less time.
        block_keys = jax.random.split(keys[6], layers)
        self.blocks = jax.vmap(lambda key: AttentionBlock(width, heads, key=key))(block_keys)
        self.histogram = MLP(width, buckets, (width,), key=keys[3])
        self.acquisition = MLP(buckets + width + 2, width, (width,), key=keys[4])
        # All candidates are worth the same at first. There is no constant, as it would change
        # nothing but follow the rounding of its gradient.
        self.preference = jnp.zeros(width)
        self.critic = MLP(2, 1, (width,), activation="tanh", key=keys[5])

    def __call__(
        self, history: History, candidates: Float[Array, "*batch candidate component"]
    ) -> tuple[Float[Array, "*batch candidate bucket"], Float[Array, "*batch candidate"]]:
        """The logits of the histogram of each candidate's value, and what it is worth."""
        embedded = self.place(_described(candidates))
        rows = self.place(_described(history.point)) + product(
            history.value[..., None], self.value[None]
        )
        begin = self.budget(history.progress)[..., None, :]
        x = jnp.concatenate([begin, rows, embedded], axis=-2)
        known = jnp.concatenate([jnp.ones_like(history.known[..., :1]), history.known], axis=-1)
        x = jax.lax.scan(lambda x, block: (block(x, known), None), x, self.blocks)[0]
        logits = self.histogram(standardised(x[..., known.shape[-1] :, :]))
        progress = jnp.broadcast_to(
            history.progress[..., None, :], (*candidates.shape[:-1], history.progress.shape[-1])
        )
        # As densities, whose size is not that of a bucket.
        density = logits.shape[-1] * jax.nn.softmax(logits, axis=-1)
        inputs = jnp.concatenate([density, embedded, progress], axis=-1)
        return logits, jax.nn.relu(self.acquisition(inputs)) @ self.preference

    def worth(self, history: History) -> Float[Array, "*batch"]:
        """The rewards that are expected from here on."""
        return self.critic(history.progress)[..., 0]


def _described(point: Float[Array, "*batch component"]) -> Float[Array, "*batch feature"]:
    """Points by themselves and by waves, each half as long as the one before."""
    waves = [jnp.pi * 2.0**k * point for k in range(_WAVES)]
    return jnp.concatenate([point, *map(jnp.sin, waves), *map(jnp.cos, waves)], axis=-1)
