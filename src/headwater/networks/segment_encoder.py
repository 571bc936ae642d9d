"""A vector for each segment of an episode, by attention over its steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Segments
from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP


class _Block(eqx.Module):
    """Attention of every step to all, then a network of each step, each added to what came in."""

    mixing: Float[Array, "3 width width"]
    network: MLP

    def __init__(self, width: int, *, key: PRNGKeyArray):
        mixing_key, network_key = jax.random.split(key)
        self.mixing = jax.random.normal(mixing_key, (3, width, width)) * width**-0.5
        self.network = MLP(width, width, (2 * width,), key=network_key)

    def __call__(self, x: Float[Array, "*batch step width"]) -> Float[Array, "*batch step width"]:
        query, key, value = (_standardised(x) @ weight for weight in self.mixing)
        scores = query @ jnp.swapaxes(key, -1, -2) * x.shape[-1] ** -0.5
        x = x + jax.nn.softmax(scores, axis=-1) @ value
        return x + self.network(_standardised(x))


class SegmentEncoder(eqx.Module):
    """A bidirectional transformer over the steps of a segment, averaged over them.

    **Arguments:** `spaces`; `size`: of the vector; `width`: of what is held of a step; `layers`.
    """

    inputs: MLP
    blocks: tuple[_Block, ...]
    outputs: MLP
    choices: int | None = eqx.field(static=True)

    def __init__(self, spaces: Spaces, size: int, width: int, layers: int, *, key: PRNGKeyArray):
        first_key, last_key, *keys = jax.random.split(key, 2 + layers)
        self.choices = spaces.action_size if spaces.discrete else None
        inputs = spaces.observation_size + spaces.action_size
        self.inputs = MLP(inputs, width, (), key=first_key)
        self.blocks = tuple(_Block(width, key=block_key) for block_key in keys)
        self.outputs = MLP(width, size, (), key=last_key)

    def __call__(self, segments: Segments) -> Float[Array, "*batch size"]:
        """The vectors of segments whose observations are standardised."""
        action = segments.action
        if self.choices is not None:
            action = jax.nn.one_hot(action, self.choices)
        x = self.inputs(jnp.concatenate([segments.observation, action], axis=-1))
        x = x + jnp.broadcast_to(_places(x.shape[-2], x.shape[-1]), x.shape)
        for block in self.blocks:
            x = block(x)
        return self.outputs(jnp.mean(_standardised(x), axis=-2))


def _standardised(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def _places(steps: int, width: int) -> Float[Array, "step width"]:
    """Where each step stands, as sines and cosines of ever longer waves."""
    rate = 10_000.0 ** (-2.0 * (jnp.arange(width) // 2) / width)
    angle = jnp.outer(jnp.arange(steps), rate)
    return jnp.where(jnp.arange(width)[None] % 2 == 0, jnp.sin(angle), jnp.cos(angle))
