"""Decoders: causal transformers of the kinds that are in use, their layers along one axis."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import (
    AbstractIncremental,
    AbstractLayered,
    AbstractPacked,
    AbstractTokenNetwork,
)
from headwater.networks.decoders.architecture import Architecture, Precision
from headwater.networks.decoders.blocks import Blocks, Norm, fresh_blocks, fresh_norm
from headwater.networks.decoders.layer import (
    NEVER,
    Kind,
    added,
    attending,
    bounded,
    fed_forward,
    first_place,
    lengths_of_texts,
    normalised,
    scores_of,
    turn_of_layer,
    turns_of,
)
from headwater.networks.experts import Routing


class KeyValues(eqx.Module):
    """What a decoder remembers of the tokens it has read: their keys and values in each layer."""

    keys: Float[Array, "layer row head position head_width"]
    values: Float[Array, "layer row head position head_width"]


class Decoder(AbstractTokenNetwork, AbstractPacked, AbstractIncremental, AbstractLayered):
    """A causal transformer.

    **Arguments:** `architecture`; `key`: the weights are drawn with it; `deviation`: see
    `fresh_blocks`; `stored`: type of the arrays (default: what is computed in). Weights in float32
    that are computed with in bfloat16 learn from steps that would be lost in bfloat16.
    """

    embedding: Float[Array, "vocabulary width"]
    position_embedding: Float[Array, "context width"] | None
    blocks: Blocks
    final_norm: Norm
    unembedding: Float[Array, "vocabulary width"] | None
    architecture: Architecture = eqx.field(static=True)

    def __init__(
        self,
        architecture: Architecture,
        *,
        key: PRNGKeyArray,
        deviation: float = 0.02,
        stored: Precision | None = None,
    ):
        a, stored = architecture, stored or architecture.dtype
        dtype = jnp.dtype(stored)
        keys = jax.random.split(key, 4)

        def rows(key: PRNGKeyArray, count: int) -> Array:
            return (deviation * jax.random.normal(key, (count, a.width))).astype(dtype)

        self.embedding = rows(keys[0], a.vocabulary)
        self.position_embedding = rows(keys[1], a.context) if a.positions == "learned" else None
        self.blocks = fresh_blocks(a, a.layers, key=keys[2], deviation=deviation, stored=stored)
        self.final_norm = fresh_norm(a, (a.width,), dtype)
        self.unembedding = None if a.tied else rows(keys[3], a.vocabulary)
        self.architecture = architecture

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.architecture.vocabulary

    @property
    def context(self) -> int:
        """Positions at most."""
        return self.architecture.context

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.architecture.width

    @property
    def layer_count(self) -> int:
        """How many layers there are."""
        return self.architecture.layers

    @property
    def gradient_accumulation(self) -> int:
        """Parts in which a batch is read for its gradient, one after the other."""
        return self.architecture.gradient_accumulation

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.unembed(self.hidden(tokens))

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        return self._run(tokens, self._layers())[0]

    def routed_hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> tuple[Float[Array, "*batch position width"], Routing]:
        """Hidden states as learning with experts reads them, and what their routers decided.

        Within `capacity`, what an expert has no room for depends on the other texts and on padding.
        Tokens of the routing are those of all texts, one after the other. Raises
        `SpecificationError` where there are no experts.
        """
        if self.blocks.router is None:
            raise SpecificationError("this decoder has no experts: give it some (`with_experts`)")
        hidden, _, routing = self._run(tokens, self._layers(), limited=True)
        return hidden, routing

    def trainable(self) -> PyTree[bool]:
        everything = jax.tree.map(eqx.is_inexact_array, self)
        if self.blocks.router is None or self.blocks.router.learned:
            return everything
        return eqx.tree_at(lambda d: d.blocks.router.weight, everything, False)

    def packed_hidden(
        self, tokens: Int[Array, "row position"], text: Int[Array, "row position"]
    ) -> Float[Array, "row position width"]:
        return self._run(tokens, self._layers(), text=text)[0]

    def logits_along(
        self,
        tokens: Int[Array, "*batch position"],
        layers: Int[Array, " depth"],
        residual_scale: float | Float[Array, ""] = 1.0,
    ) -> Float[Array, "*batch position vocabulary"]:
        chosen = jax.tree.map(lambda x: x[layers], self._layers())
        return self.unembed(self._run(tokens, chosen, residual_scale)[0])

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        """The logits of hidden states."""
        a, weights = self.architecture, self.output_weights().astype(hidden.dtype)
        logits = jnp.einsum("...w,vw->...v", hidden, weights, preferred_element_type=jnp.float32)
        if a.logit_divisor != 1.0:
            logits = logits / a.logit_divisor
        return bounded(logits, a.logit_bound)

    def output_weights(self) -> Float[Array, "vocabulary width"]:
        """What logits are products with: the unembedding, or the embedding where it is tied."""
        return self.embedding if self.unembedding is None else self.unembedding

    def read(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"], capacity: int
    ) -> tuple[KeyValues, Float[Array, "row vocabulary"]]:
        run = self._run(tokens, self._layers(), remember=True, length=length)
        hidden, (keys, values), _ = run
        room = [(0, 0)] * 3 + [(0, capacity - tokens.shape[-1]), (0, 0)]
        last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)
        return KeyValues(jnp.pad(keys, room), jnp.pad(values, room)), self.unembed(last)[:, 0]

    def read_one(
        self, cache: KeyValues, token: Int[Array, " row"], position: Int[Array, " row"]
    ) -> tuple[KeyValues, Float[Array, "row vocabulary"]]:
        a, rows = self.architecture, token.shape[0]
        x = self._embedded(token, position)
        turns = turns_of(a, position, position + 1)
        # Earlier positions only: the new token's own key and value are not in the cache yet, so
        # that the cache is written once for all layers rather than copied in each.
        place = jnp.arange(cache.keys.shape[-2])[None]
        earlier = place < position[:, None]
        within = earlier
        if a.window is not None:
            within = earlier & (place > position[:, None] - a.window)

        def layer(x, inputs):
            (block, kind), keys, values = inputs
            y = normalised(block.attention_norm, x)
            query, key, value = attending(block, y, a, turn_of_layer(turns, kind))
            query = query.reshape(rows, a.key_value_heads, -1, a.head_width)
            seen = kind.choose(within, earlier)[:, None, None]
            scores = jnp.where(seen, scores_of("rkgh,rkph->rkgp", query, keys, a), NEVER)
            own = scores_of("rkgh,rkh->rkg", query, key, a)[..., None]
            probabilities = jax.nn.softmax(jnp.concatenate([scores, own], axis=-1)).astype(x.dtype)
            seen = jnp.einsum("rkgp,rkph->rkgh", probabilities[..., :-1], values)
            seen = seen + probabilities[..., -1:] * jnp.broadcast_to(value[:, :, None], seen.shape)
            x = added(x, block.output(seen.reshape(rows, -1)), block.attention_output_norm, a)
            fed, _ = fed_forward(block, x, a)
            return added(x, fed, block.feed_forward_output_norm, a), (key, value)

        x, (key, value) = jax.lax.scan(layer, x, (self._layers(), cache.keys, cache.values))
        row = jnp.arange(rows)
        # Indexed axes come first in what is written: row, then layer, head and head width.
        cache = KeyValues(
            cache.keys.at[:, row, :, position].set(jnp.moveaxis(key, 1, 0)),
            cache.values.at[:, row, :, position].set(jnp.moveaxis(value, 1, 0)),
        )
        return cache, self.unembed(self.final_norm(x))

    def _layers(self) -> tuple[Blocks, Kind]:
        """The layers, and in what they differ besides their weights."""
        a = self.architecture
        local, rotary = (
            None if which is None else jnp.asarray(which)
            for which in (a.local_layers, a.rotary_layers)
        )
        return self.blocks, Kind(local, rotary)

    def _embedded(self, tokens, positions):
        a = self.architecture
        x = self.embedding[tokens].astype(a.dtype)
        if a.embedding_scale != 1.0:
            x = x * jnp.asarray(a.embedding_scale, a.dtype)
        if self.position_embedding is None:
            return x
        return x + self.position_embedding[positions].astype(a.dtype)

    def _run(
        self,
        tokens: Array,
        layers: tuple[Blocks, Kind],
        residual_scale: float | Float[Array, ""] = 1.0,
        remember: bool = False,
        text: Int[Array, "row position"] | None = None,
        length: Int[Array, " row"] | None = None,
        limited: bool = False,
    ) -> tuple[Array, Any, Any]:
        """Hidden states `[*batch, position, width]`; keys and values of each layer if asked for.

        **Arguments:** `text`: of each token, where a row holds several that do not see each other;
        `length`: of the text in each row, where that is known (default: all positions);
        `limited`: experts take no more tokens than the capacity lets them, and what routers decide
        is returned third.
        """
        a, (*batch, positions) = self.architecture, tokens.shape
        if positions > a.context:
            raise SpecificationError(
                f"texts of {positions} tokens do not fit into a context of {a.context}: "
                "shorten them"
            )
        rows, groups, pieces = math.prod(batch), a.key_value_heads, a.head_width
        place = jnp.broadcast_to(jnp.arange(positions), (rows, positions))
        visible = jnp.tril(jnp.ones((1, positions, positions), bool))
        within = visible
        if a.window is not None:
            # What is further back than the window; within it the lower triangle stays.
            within = visible & ~jnp.tril(visible, -a.window)
        if text is not None:
            same = text[:, :, None] == text[:, None, :]
            visible, within = visible & same, within & same
            place = place - first_place(text)
        x = self._embedded(tokens.reshape(rows, positions), place).reshape(-1, a.width)
        longest: Any = positions if length is None else jnp.repeat(length, positions)
        if text is not None:
            # Each text is as long as it is alone, whatever else is in its row.
            longest = lengths_of_texts(text).reshape(-1)
        turns = turns_of(a, place.reshape(-1), longest)
        slots = math.ceil(a.capacity * rows * positions) if limited else rows * positions

        def apart(y):
            # Products of matrices with one axis before them are much faster than with several.
            y = jnp.moveaxis(y.reshape(rows, positions, groups, -1, pieces), 1, 3)
            return y.reshape(rows * groups, -1, pieces)

        def layer(x, inputs):
            block, kind = inputs
            y = normalised(block.attention_norm, x)
            query, key, value = map(apart, attending(block, y, a, turn_of_layer(turns, kind)))
            scores = scores_of("rqh,rph->rqp", query, key, a)
            # The same for every head of a row.
            seen = kind.choose(within, visible)
            scores = scores.reshape(seen.shape[0], -1, positions, positions)
            scores = jnp.where(seen[:, None], scores, NEVER)
            probabilities = jax.nn.softmax(scores).astype(x.dtype)
            seen = probabilities.reshape(rows * groups, -1, positions) @ value
            seen = jnp.moveaxis(seen.reshape(rows, groups, -1, positions, pieces), 3, 1)
            attended = block.output(seen.reshape(rows * positions, -1))
            x = added(x, attended, block.attention_output_norm, a, residual_scale)
            fed, routing = fed_forward(block, x, a, slots)
            x = added(x, fed, block.feed_forward_output_norm, a, residual_scale)
            apart_by_row = (rows, groups, positions, pieces)
            remembered = (key.reshape(apart_by_row), value.reshape(apart_by_row))
            return x, (remembered if remember else None, routing if limited else None)

        if a.gradient_checkpointing:
            layer = jax.checkpoint(layer)
        x, (remembered, routing) = jax.lax.scan(layer, x, layers)
        return self.final_norm(x).reshape(*batch, positions, a.width), remembered, routing
