"""Decoders that read vectors in place of tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.layer import (
    NEVER,
    added,
    attending,
    fed_forward,
    normalised,
    scores_of,
    turn_of_layer,
    turns_of,
)


def hidden_of_vectors(
    decoder: Decoder, vectors: Float[Array, "row position width"]
) -> Float[Array, "row position width"]:
    """The last hidden states of rows of vectors, read as if they were the embeddings of tokens.

    Positions are those of the decoder, and none sees a later one, so that what stands behind the
    end of a row changes nothing before it. Raises `SpecificationError` if there are more vectors
    than positions.
    """
    a, (rows, positions, _) = decoder.architecture, vectors.shape
    if positions > a.context:
        raise SpecificationError(
            f"{positions} vectors do not fit into a context of {a.context}: shorten the window"
        )
    place = jnp.broadcast_to(jnp.arange(positions), (rows, positions))
    x = vectors.astype(a.dtype)
    if decoder.position_embedding is not None:
        x = x + decoder.position_embedding[place].astype(a.dtype)
    x = x.reshape(rows * positions, a.width)
    turns = turns_of(a, place.reshape(-1), positions)
    visible = jnp.tril(jnp.ones((positions, positions), bool))
    within = visible
    if a.window is not None:
        within = visible & ~jnp.tril(visible, -a.window)

    def layer(x, inputs):
        block, kind = inputs
        y = normalised(block.attention_norm, x)
        query, key, value = (
            each.reshape(rows, positions, a.key_value_heads, -1, a.head_width)
            for each in attending(block, y, a, turn_of_layer(turns, kind))
        )
        scores = scores_of("rqkgh,rpkh->rkgqp", query, key[:, :, :, 0], a)
        seen = jnp.broadcast_to(kind.choose(within, visible), scores.shape)
        probabilities = jax.nn.softmax(jnp.where(seen, scores, NEVER)).astype(x.dtype)
        attended = jnp.einsum("rkgqp,rpkh->rqkgh", probabilities, value[:, :, :, 0])
        attended = block.output(attended.reshape(rows * positions, -1))
        x = added(x, attended, block.attention_output_norm, a)
        fed, _ = fed_forward(block, x, a)
        return added(x, fed, block.feed_forward_output_norm, a), None

    if a.gradient_checkpointing:
        layer = jax.checkpoint(layer)
    x, _ = jax.lax.scan(layer, x, decoder._layers())
    return decoder.final_norm(x).reshape(rows, positions, a.width)
