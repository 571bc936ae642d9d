"""A vector for each segment of an episode, by attention over its steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import Segments
from headwater.core.spaces import Spaces
from headwater.networks.attention import AttentionBlock, standardised
from headwater.networks.mlp import MLP


class SegmentEncoder(eqx.Module):
    """A bidirectional transformer over the steps of a segment, averaged over them.

    **Arguments:** `spaces`; `size`: of the vector; `width`: of what is held of a step; `layers`.
    """

    inputs: MLP
    blocks: tuple[AttentionBlock, ...]
    outputs: MLP
    choices: int | None = eqx.field(static=True)

    def __init__(self, spaces: Spaces, size: int, width: int, layers: int, *, key: PRNGKeyArray):
        first_key, last_key, *keys = jax.random.split(key, 2 + layers)
        self.choices = spaces.action_size if spaces.discrete else None
        inputs = spaces.observation_size + spaces.action_size
        self.inputs = MLP(inputs, width, (), key=first_key)
        self.blocks = tuple(AttentionBlock(width, key=block_key) for block_key in keys)
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
        return self.outputs(jnp.mean(standardised(x), axis=-2))


def _places(steps: int, width: int) -> Float[Array, "step width"]:
    """Where each step stands, as sines and cosines of ever longer waves."""
    rate = 10_000.0 ** (-2.0 * (jnp.arange(width) // 2) / width)
    angle = jnp.outer(jnp.arange(steps), rate)
    return jnp.where(jnp.arange(width)[None] % 2 == 0, jnp.sin(angle), jnp.cos(angle))
