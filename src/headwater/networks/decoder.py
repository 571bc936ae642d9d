"""Decoders: causal transformers of the kinds that are in use, their layers along one axis."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.fields import check_fields
from headwater.core.tokens import (
    AbstractIncremental,
    AbstractLayered,
    AbstractPacked,
    AbstractTokenNetwork,
)
from headwater.networks.experts import (
    ExpertWeights,
    Router,
    Routing,
    dispatched,
    fresh_router,
    mixed,
)
from headwater.networks.rotary import (
    RotaryScaling,
    Turn,
    rotary_frequencies,
    rotary_turn,
    turned,
)

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    r"""What shapes a decoder; the defaults are of the Llama family, `gpt2` gives the other.

    **Arguments:** `vocabulary`: tokens; `context`: positions at most; `width`: of the residual
    stream; `layers`; `heads`: of attention; `hidden`: width inside the feed-forward part (default:
    four times the width); `key_value_heads`: fewer of them than `heads` share keys and values
    (default: as many); `head_width` (default: the width over the heads); `norm`: root mean square,
    layer norm, or layer norm without weights; `norm_places`: of each half of a layer, what it
    reads, what it writes, or both; `centred_norms`: whether the weights of norms are stored less
    one; `query_norm`: whether queries and keys are normalised, each head or all together;
    `positions`; `feed_forward`: gated SiLU, gated GELU, or GELU, in its tanh form; `tied`: whether
    the unembedding is the embedding; `rotary_base`, `rotary_scaling`: of rotary positions;
    `rotary_width`: numbers of each head that they turn (default: all); `rotary_layers`: which
    layers have them (default: all); `window`: so many positions, its own included, are seen from
    each (default: all before it); `local_layers`: which layers keep to the window (default: all);
    `local_rotary_base`: of these, which then are not scaled (default: as the others); `epsilon`: of
    the norms; `query_bias`: whether queries, keys and values have biases; `output_bias`: of
    attention's output; `feed_forward_bias`; `experts`: feed-forward parts in each layer, each
    `hidden` wide, among which a router chooses (default: one part and no router); `active_experts`:
    of them for a token; `expert_weights`: see `ExpertWeights`; `capacity`: share of the tokens read
    together that an expert takes at most while learning (`routed_hidden`), the Switch Transformer's
    capacity factor times `active_experts` over `experts`; 1 leaves none out; `embedding_scale`,
    `residual_scale`: what embeddings, and what layers add, are multiplied by; `attention_scale`:
    what scores are (default: the inverse square root of the head width); `logit_divisor`: what
    logits are divided by; `attention_bound`, `logit_bound`: scores and logits $s$ become $b \tanh(s
    / b)$; `query_bound`: on the absolute values of queries, keys and values;
    `gradient_checkpointing`: whether what a layer computes is computed again for the gradient,
    which takes time and saves memory; `dtype`: what is computed in (softmax, routers, norms and
    logits are always in float32).

    Raises `SpecificationError` for sizes that do not fit together.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    hidden: int = 0
    key_value_heads: int = 0
    head_width: int = 0
    norm: Literal["rms", "layer", "weightless"] = "rms"
    norm_places: Literal["before", "after", "both"] = "before"
    centred_norms: bool = False
    query_norm: Literal["none", "head", "whole"] = "none"
    positions: Literal["rotary", "learned"] = "rotary"
    feed_forward: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    tied: bool = False
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    rotary_width: int = 0
    rotary_layers: tuple[bool, ...] | None = None
    window: int | None = None
    local_layers: tuple[bool, ...] | None = None
    local_rotary_base: float | None = None
    epsilon: float = 1e-5
    query_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    experts: int = 0
    active_experts: int = 1
    expert_weights: ExpertWeights = "chosen"
    capacity: float = 1.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float = 0.0
    logit_divisor: float = 1.0
    attention_bound: float | None = None
    logit_bound: float | None = None
    query_bound: float | None = None
    gradient_checkpointing: bool = False
    dtype: Precision = "float32"

    def __post_init__(self):
        check_fields(self)
        # A frozen dataclass fills its defaults in this way alone.
        given = {
            "hidden": self.hidden or 4 * self.width,
            "key_value_heads": self.key_value_heads or self.heads,
            "head_width": self.head_width or self.width // max(self.heads, 1),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if self.head_width:
            scale = self.attention_scale or self.head_width**-0.5
            object.__setattr__(self, "attention_scale", scale)
            object.__setattr__(self, "rotary_width", self.rotary_width or self.head_width)
        for name in ("vocabulary", "context", "width", "layers", "heads", "head_width"):
            if getattr(self, name) < 1:
                raise SpecificationError(f"a decoder needs at least one of {name}")
        if self.window is not None and self.window < 1:
            raise SpecificationError(f"a window of {self.window} positions shows nothing: widen it")
        if self.experts and not 1 <= self.active_experts <= self.experts:
            raise SpecificationError(
                f"{self.active_experts} of {self.experts} experts cannot work on a token: take at "
                "least 1 and at most all"
            )
        if not 0.0 < self.capacity <= 1.0:
            raise SpecificationError(
                f"capacity = {self.capacity:g} is a share of the tokens: take more than 0 and at "
                "most 1"
            )
        if self.heads % self.key_value_heads:
            raise SpecificationError(
                f"{self.heads} heads cannot share {self.key_value_heads} heads of keys and values "
                "evenly: take a divisor"
            )
        if self.positions == "rotary" and self.rotary_width % 2:
            raise SpecificationError(
                f"rotary positions turn pairs of numbers, and a head of width {self.rotary_width} "
                "is odd: take an even one"
            )
        if self.local_layers is not None and self.window is None:
            raise SpecificationError("layers that keep to a window need one: say how wide it is")
        for name in ("local_layers", "rotary_layers"):
            which = getattr(self, name)
            if which is not None and len(which) != self.layers:
                raise SpecificationError(
                    f"{name} says something of {len(which)} layers, but there are {self.layers}"
                )


def gpt2(vocabulary: int, context: int, width: int, layers: int, heads: int, **other):
    """The architecture of the GPT-2 family in this size. `other`: further fields."""
    family = {
        "norm": "layer",
        "positions": "learned",
        "feed_forward": "gelu",
        "tied": True,
        "query_bias": True,
        "output_bias": True,
        "feed_forward_bias": True,
    }
    return Architecture(vocabulary, context, width, layers, heads, **{**family, **other})


class AbstractLinear(eqx.Module):
    """A linear map of the last axis, or one for each layer of a stack."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        """The image of `x`, in its type."""


class Linear(AbstractLinear):
    """A matrix and perhaps a bias."""

    weight: Float[Array, "*layer fan_in fan_out"]
    bias: Float[Array, "*layer fan_out"] | None = None

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        return product(x, self.weight, self.bias)


def product(
    x: Float[Array, "*batch fan_in"],
    weight: Float[Array, "fan_in fan_out"],
    bias: Float[Array, " fan_out"] | None = None,
) -> Float[Array, "*batch fan_out"]:
    """A linear map of the last axis, in the type of `x`."""
    # In one matrix: the gradient of the weights is slow where x has more axes.
    y = x.reshape(-1, x.shape[-1]) @ weight.astype(x.dtype)
    if bias is not None:
        y = y + jnp.broadcast_to(bias.astype(x.dtype), y.shape)
    return y.reshape(*x.shape[:-1], y.shape[-1])


class Norm(eqx.Module):
    """Root-mean-square norm, or layer norm where there is an offset or no scale.

    `centred`: the scale is stored less one.
    """

    scale: Float[Array, "*layer width"] | None
    offset: Float[Array, "*layer width"] | None
    epsilon: float = eqx.field(static=True)
    centred: bool = eqx.field(static=True, default=False)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """`x` normalised in float32, in its own type."""
        y = x.astype(jnp.float32)
        if self.offset is not None or self.scale is None:
            y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + self.epsilon)
        if self.scale is not None:
            scale = self.scale.astype(jnp.float32)
            y = y * jnp.broadcast_to(1.0 + scale if self.centred else scale, y.shape)
        if self.offset is not None:
            y = y + jnp.broadcast_to(self.offset.astype(jnp.float32), y.shape)
        return y.astype(x.dtype)


class Blocks(eqx.Module):
    """Layers of a decoder, every array with a leading axis for them.

    With a `router`, those of `gate`, `up` and `down` have a second axis for the experts.
    """

    attention_norm: Norm | None
    query: AbstractLinear
    key: AbstractLinear
    value: AbstractLinear
    output: AbstractLinear
    feed_forward_norm: Norm | None
    gate: AbstractLinear | None
    up: AbstractLinear
    down: AbstractLinear
    router: Router | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    attention_output_norm: Norm | None = None
    feed_forward_output_norm: Norm | None = None

    @property
    def count(self) -> int:
        """How many layers."""
        return jax.tree.leaves(self)[0].shape[0]


def fresh_blocks(
    architecture: Architecture,
    layers: int,
    *,
    key: PRNGKeyArray,
    deviation: float = 0.02,
    stored: Precision = "float32",
) -> Blocks:
    """So many layers as training begins with.

    **Arguments:** `deviation`: standard deviation of the weights; those that write into the
    residual stream have it over the square root of twice the depth of `architecture`; `stored`: the
    type of the arrays.
    """
    a, dtype = architecture, jnp.dtype(stored)
    keys = jax.random.split(key, 7)
    residual = deviation / math.sqrt(2 * a.layers)

    def linear(
        i: int, fan_in: int, fan_out: int, biased: bool, deviation: float, *expert: int
    ) -> Linear:
        weight = deviation * jax.random.normal(keys[i], (layers, *expert, fan_in, fan_out))
        bias = jnp.zeros((layers, *expert, fan_out), dtype) if biased else None
        return Linear(weight.astype(dtype), bias)

    router, each = None, (a.experts,) if a.experts else ()
    if a.experts:
        router = fresh_router(
            a.width,
            a.experts,
            a.active_experts,
            a.expert_weights,
            key=jax.random.fold_in(key, 7),
            layers=(layers,),
        )

    inner, shared = a.heads * a.head_width, a.key_value_heads * a.head_width
    gated = a.feed_forward != "gelu"
    before, after = a.norm_places != "after", a.norm_places != "before"

    def norm(present: bool, width: int = a.width) -> Norm | None:
        return _norm(a, (layers, width), dtype) if present else None

    whole, queried = a.query_norm == "whole", a.query_norm != "none"
    return Blocks(
        norm(before),
        linear(0, a.width, inner, a.query_bias, deviation),
        linear(1, a.width, shared, a.query_bias, deviation),
        linear(2, a.width, shared, a.query_bias, deviation),
        linear(3, inner, a.width, a.output_bias, residual),
        norm(before),
        linear(4, a.width, a.hidden, a.feed_forward_bias, deviation, *each) if gated else None,
        linear(5, a.width, a.hidden, a.feed_forward_bias, deviation, *each),
        linear(6, a.hidden, a.width, a.feed_forward_bias, residual, *each),
        router,
        norm(queried, inner if whole else a.head_width),
        norm(queried, shared if whole else a.head_width),
        norm(after),
        norm(after),
    )


def _norm(architecture: Architecture, shape: tuple[int, ...], dtype) -> Norm:
    a = architecture
    if a.norm == "weightless":
        return Norm(None, None, a.epsilon)
    scale = jnp.zeros(shape, dtype) if a.centred_norms else jnp.ones(shape, dtype)
    offset = jnp.zeros(shape, dtype) if a.norm == "layer" else None
    return Norm(scale, offset, a.epsilon, a.centred_norms)


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
        self.final_norm = _norm(a, (a.width,), dtype)
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
        return _bounded(logits, a.logit_bound)

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
        turns = _turns(a, position, position + 1)
        # Earlier positions only: the new token's own key and value are not in the cache yet, so
        # that the cache is written once for all layers rather than copied in each.
        place = jnp.arange(cache.keys.shape[-2])[None]
        earlier = place < position[:, None]
        within = earlier
        if a.window is not None:
            within = earlier & (place > position[:, None] - a.window)

        def layer(x, inputs):
            (block, kind), keys, values = inputs
            y = _normalised(block.attention_norm, x)
            query, key, value = _attending(block, y, a, _of_layer(turns, kind))
            query = query.reshape(rows, a.key_value_heads, -1, a.head_width)
            seen = kind.choose(within, earlier)[:, None, None]
            scores = jnp.where(seen, _scores("rkgh,rkph->rkgp", query, keys, a), _NEVER)
            own = _scores("rkgh,rkh->rkg", query, key, a)[..., None]
            probabilities = jax.nn.softmax(jnp.concatenate([scores, own], axis=-1)).astype(x.dtype)
            seen = jnp.einsum("rkgp,rkph->rkgh", probabilities[..., :-1], values)
            seen = seen + probabilities[..., -1:] * jnp.broadcast_to(value[:, :, None], seen.shape)
            x = _added(x, block.output(seen.reshape(rows, -1)), block.attention_output_norm, a)
            fed, _ = _fed_forward(block, x, a)
            return _added(x, fed, block.feed_forward_output_norm, a), (key, value)

        x, (key, value) = jax.lax.scan(layer, x, (self._layers(), cache.keys, cache.values))
        row = jnp.arange(rows)
        # Indexed axes come first in what is written: row, then layer, head and head width.
        cache = KeyValues(
            cache.keys.at[:, row, :, position].set(jnp.moveaxis(key, 1, 0)),
            cache.values.at[:, row, :, position].set(jnp.moveaxis(value, 1, 0)),
        )
        return cache, self.unembed(self.final_norm(x))

    def _layers(self) -> "tuple[Blocks, _Kind]":
        """The layers, and in what they differ besides their weights."""
        a = self.architecture
        local, rotary = (
            None if which is None else jnp.asarray(which)
            for which in (a.local_layers, a.rotary_layers)
        )
        return self.blocks, _Kind(local, rotary)

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
        layers: "tuple[Blocks, _Kind]",
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
            place = place - _first_place(text)
        x = self._embedded(tokens.reshape(rows, positions), place).reshape(-1, a.width)
        longest: Any = positions if length is None else jnp.repeat(length, positions)
        if text is not None:
            # Each text is as long as it is alone, whatever else is in its row.
            longest = _lengths_of_texts(text).reshape(-1)
        turns = _turns(a, place.reshape(-1), longest)
        slots = math.ceil(a.capacity * rows * positions) if limited else rows * positions

        def apart(y):
            # Products of matrices with one axis before them are much faster than with several.
            y = jnp.moveaxis(y.reshape(rows, positions, groups, -1, pieces), 1, 3)
            return y.reshape(rows * groups, -1, pieces)

        def layer(x, inputs):
            block, kind = inputs
            y = _normalised(block.attention_norm, x)
            query, key, value = map(apart, _attending(block, y, a, _of_layer(turns, kind)))
            scores = _scores("rqh,rph->rqp", query, key, a)
            # The same for every head of a row.
            seen = kind.choose(within, visible)
            scores = scores.reshape(seen.shape[0], -1, positions, positions)
            scores = jnp.where(seen[:, None], scores, _NEVER)
            probabilities = jax.nn.softmax(scores).astype(x.dtype)
            seen = probabilities.reshape(rows * groups, -1, positions) @ value
            seen = jnp.moveaxis(seen.reshape(rows, groups, -1, positions, pieces), 3, 1)
            attended = block.output(seen.reshape(rows * positions, -1))
            x = _added(x, attended, block.attention_output_norm, a, residual_scale)
            fed, routing = _fed_forward(block, x, a, slots)
            x = _added(x, fed, block.feed_forward_output_norm, a, residual_scale)
            apart_by_row = (rows, groups, positions, pieces)
            remembered = (key.reshape(apart_by_row), value.reshape(apart_by_row))
            return x, (remembered if remember else None, routing if limited else None)

        if a.gradient_checkpointing:
            layer = jax.checkpoint(layer)
        x, (remembered, routing) = jax.lax.scan(layer, x, layers)
        return self.final_norm(x).reshape(*batch, positions, a.width), remembered, routing


class _Kind(NamedTuple):
    """What a layer is besides its weights, or each of several; `None` where all are alike.

    **Arguments:** `local`: whether it keeps to the window; `rotary`: whether it turns by positions.
    """

    local: Array | None
    rotary: Array | None

    def choose(self, of_local: Array, of_others: Array) -> Array:
        """One of two, by whether the layer keeps to the window (all do unless it is said)."""
        return of_local if self.local is None else jnp.where(self.local, of_local, of_others)


_NEVER = jnp.finfo(jnp.float32).min
"""Where attention may not look; finite, so that no gradient is NaN."""


def _first_place(text: Int[Array, "row position"]) -> Int[Array, "row position"]:
    """Where in its row the text begins that each token belongs to."""
    place = jnp.broadcast_to(jnp.arange(text.shape[-1]), text.shape)
    begins = jnp.diff(text, axis=-1, prepend=text[:, :1] - 1) != 0
    return jax.lax.cummax(jnp.where(begins, place, 0), axis=1)


def _lengths_of_texts(text: Int[Array, "row position"]) -> Int[Array, "row position"]:
    """Tokens of the text that each token belongs to."""
    place = jnp.arange(text.shape[-1])
    ends = jnp.diff(text, axis=-1, append=text[:, -1:] - 1) != 0
    last = jax.lax.cummin(jnp.where(ends, place, text.shape[-1]), axis=1, reverse=True)
    return last + 1 - _first_place(text)


def _heads(x, architecture: Architecture):
    return x.reshape(*x.shape[:-1], -1, architecture.head_width)


def _normalised(norm: Norm | None, x):
    return x if norm is None else norm(x)


def _bounded(x, bound: float | None):
    """Never beyond the bound, and smooth."""
    return x if bound is None else bound * jnp.tanh(x / bound)


def _added(x, y, norm: Norm | None, architecture: Architecture, scale: float | Array = 1.0):
    """What half a layer wrote, added to the residual stream."""
    scale = jnp.asarray(scale * architecture.residual_scale, x.dtype)
    return x + scale * _normalised(norm, y)


def _attending(block: Blocks, y, architecture: Architecture, turn: Turn | None):
    """Queries, keys and values `[..., head, head_width]`."""
    a = architecture
    query, key, value = block.query(y), block.key(y), block.value(y)
    if a.query_bound is not None:
        query, key, value = (
            jnp.clip(each, -a.query_bound, a.query_bound) for each in (query, key, value)
        )
    if a.query_norm == "whole":
        query, key = _normalised(block.query_norm, query), _normalised(block.key_norm, key)
    query, key, value = (_heads(each, a) for each in (query, key, value))
    if a.query_norm == "head":
        query, key = _normalised(block.query_norm, query), _normalised(block.key_norm, key)
    return turned(query, turn), turned(key, turn), value


def _scores(product: str, query: Array, key: Array, a: Architecture) -> Float[Array, "..."]:
    scores = jnp.einsum(product, query, key, preferred_element_type=jnp.float32)
    return _bounded(scores * a.attention_scale, a.attention_bound)


def _fed_forward(
    block: Blocks, x, architecture: Architecture, slots: int | None = None
) -> tuple[Array, Routing | None]:
    """What is added to each token `[token, width]`, and what the router decided, if there is one.

    **Arguments:** `slots`: tokens that an expert takes at most (default: all).
    """
    y = _normalised(block.feed_forward_norm, x)
    gated = jax.nn.gelu if architecture.feed_forward == "geglu" else jax.nn.silu

    def one(up: AbstractLinear, down: AbstractLinear, gate: AbstractLinear | None, y):
        inner = jax.nn.gelu(up(y), approximate=True) if gate is None else gated(gate(y))
        return down(inner if gate is None else inner * up(y))

    if block.router is None:
        return one(block.up, block.down, block.gate, y), None
    routing = block.router(y)
    each = lambda y: jax.vmap(one)(block.up, block.down, block.gate, y)
    if slots is None or slots >= y.shape[0]:
        return mixed(each, routing, y), routing
    return dispatched(each, routing, y, slots)


class _Turns(NamedTuple):
    """How tokens are turned in most layers, and in those that keep to a window."""

    others: Turn | None
    local: Turn | None


def _turns(architecture: Architecture, position: Int[Array, " token"], length: Any) -> _Turns:
    """**Arguments:** `length`: of the text that each token is of."""
    a = architecture
    if a.positions != "rotary":
        return _Turns(None, None)
    frequency = rotary_frequencies(a.rotary_base, a.rotary_width, a.rotary_scaling, length)
    others = rotary_turn(position, frequency, a.rotary_scaling)
    if a.local_rotary_base is None:
        return _Turns(others, None)
    frequency = rotary_frequencies(a.local_rotary_base, a.rotary_width)
    return _Turns(others, rotary_turn(position, frequency, None))


def _of_layer(turns: _Turns, kind: _Kind) -> Turn | None:
    """How tokens are turned in one layer."""
    turn = turns.others
    if turn is None:
        return None
    if turns.local is not None:
        turn = kind.choose(turns.local[0], turn[0]), kind.choose(turns.local[1], turn[1])
    if kind.rotary is None:
        return turn
    return jnp.where(kind.rotary, turn[0], 1.0), jnp.where(kind.rotary, turn[1], 0.0)


# Experts put in and taken out -------------------------------------------------------------------


def with_experts(
    decoder: Decoder,
    experts: int,
    *,
    key: PRNGKeyArray,
    active: int = 1,
    made_of: Literal["copies", "parts"] = "copies",
    expert_weights: ExpertWeights = "chosen",
    capacity: float = 1.0,
) -> Decoder:
    """The decoder with experts made of its feed-forward parts, and routers that are drawn.

    With `expert_weights="chosen"`, copies say the same as the decoder, whatever is chosen (sparse
    upcycling, arXiv:2212.05055); equal parts say the same if all are active with equal weights.

    **Arguments:** `made_of`: copies of the whole part, or equal pieces of its hidden width; the
    others as in `Architecture`. Raises `SpecificationError` if the width cannot be divided, or
    where there are experts already.
    """
    a, blocks = decoder.architecture, decoder.blocks
    if a.experts:
        raise SpecificationError(f"this decoder has {a.experts} experts already")
    hidden = a.hidden
    if made_of == "parts":
        if a.hidden % experts:
            raise SpecificationError(
                f"{a.hidden} hidden units cannot be divided among {experts} experts: take a divisor"
            )
        hidden = a.hidden // experts
    architecture = dataclasses.replace(
        a,
        experts=experts,
        active_experts=active,
        expert_weights=expert_weights,
        capacity=capacity,
        hidden=hidden,
    )

    def pieces(x: Array, axis: int) -> Array:
        """Of one array `[layer, …]`: the experts' second axis, `axis` divided among them."""
        divided = x.reshape(*x.shape[:axis], experts, hidden, *x.shape[axis + 1 :])
        return jnp.moveaxis(divided, axis, 1)

    def copies(x: Array) -> Array:
        return jnp.repeat(x[:, None], experts, axis=1)

    def linear(part: AbstractLinear | None, axis: int) -> Linear | None:
        if part is None:
            return None
        if not isinstance(part, Linear):
            raise SpecificationError("experts are made of plain matrices: merge adapters first")
        if made_of == "copies":
            return jax.tree.map(copies, part)
        if axis == 1:
            # Weights of experts add up to one.
            bias = None if part.bias is None else copies(part.bias)
            return Linear(experts * pieces(part.weight, 1), bias)
        return Linear(pieces(part.weight, 2), None if part.bias is None else pieces(part.bias, 1))

    router = fresh_router(a.width, experts, active, expert_weights, key=key, layers=(blocks.count,))
    changed = dataclasses.replace(
        blocks,
        gate=linear(blocks.gate, 2),
        up=linear(blocks.up, 2),
        down=linear(blocks.down, 1),
        router=router,
    )
    return _changed(decoder, blocks=changed, architecture=architecture)


def with_one_expert(decoder: Decoder, choice: Int[Array, " layer"]) -> Decoder:
    """The decoder without routers that has one expert of each layer, with weight one.

    **Arguments:** `choice`: which, in each layer; it may be known only when it runs.
    """
    blocks = decoder.blocks
    layer = jnp.arange(blocks.count)
    pick = lambda part: jax.tree.map(lambda x: x[layer, choice], part)
    blocks = dataclasses.replace(
        blocks, gate=pick(blocks.gate), up=pick(blocks.up), down=pick(blocks.down), router=None
    )
    architecture = dataclasses.replace(decoder.architecture, experts=0, active_experts=1)
    return _changed(decoder, blocks=blocks, architecture=architecture)


def with_router(decoder: Decoder, **fields: Any) -> Decoder:
    """The decoder with other fields of its routers: `active`, `learned`…

    A number for `active` is that of every layer. Raises `SpecificationError` without experts.
    """
    router = decoder.blocks.router
    if router is None:
        raise SpecificationError("this decoder has no experts: give it some (`with_experts`)")
    if "active" in fields:
        fields["active"] = jnp.broadcast_to(
            jnp.asarray(fields["active"], jnp.int32), router.active.shape
        )
    router = dataclasses.replace(router, **fields)
    return _changed(decoder, blocks=dataclasses.replace(decoder.blocks, router=router))


# Layers put in, taken out and repeated ----------------------------------------------------------


def with_layers(decoder: Decoder, layers: Sequence[int]) -> Decoder:
    """The decoder of these layers: some may be left out, repeated, or change places.

    It works as well on a tree of the same form, such as the moments of an optimiser. Raises
    `SpecificationError` for a layer that is not there.
    """
    count = decoder.architecture.layers
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong or not layers:
        which = f"there is no layer {wrong[0]}" if wrong else "no layer is left"
        raise SpecificationError(
            f"{which}: the decoder has layers 0 to {count - 1}, of which at least one is needed"
        )
    index = np.asarray(layers)
    a = decoder.architecture
    kinds = {
        name: None if which is None else tuple(which[layer] for layer in layers)
        for name, which in (("local_layers", a.local_layers), ("rotary_layers", a.rotary_layers))
    }
    blocks = jax.tree.map(lambda x: x[index], decoder.blocks)
    return _with_blocks(decoder, blocks, layers=len(layers), **kinds)


def with_inserted(decoder: Decoder, blocks: Blocks, before: int) -> Decoder:
    """The decoder with more layers in front of its layer `before`, or at the end.

    Raises `SpecificationError` for a place that is not there, and where layers are of several
    kinds.
    """
    a = decoder.architecture
    count = a.layers
    if a.local_layers is not None or a.rotary_layers is not None:
        raise SpecificationError(
            "fresh layers go into a decoder whose layers are all of one kind: some of these keep "
            "to a window, or have no rotary positions"
        )
    if not 0 <= before <= count:
        raise SpecificationError(f"layers go in before one of 0 to {count}, not {before}")

    def joined(old, new):
        return jnp.concatenate([old[:before], new.astype(old.dtype), old[before:]])

    joint = jax.tree.map(joined, decoder.blocks, blocks)
    return _with_blocks(decoder, joint, layers=count + blocks.count)


def silent(blocks: Blocks) -> Blocks:
    """The same layers adding nothing: what they write into the residual stream is zero."""
    written = (blocks.output, blocks.down)
    return eqx.tree_at(lambda b: (b.output, b.down), blocks, jax.tree.map(jnp.zeros_like, written))


def _with_blocks(decoder: Decoder, blocks: Blocks, **changes: Any) -> Decoder:
    architecture = dataclasses.replace(decoder.architecture, **changes)
    return _changed(decoder, blocks=blocks, architecture=architecture)


def _changed(decoder: Decoder, **fields) -> Decoder:
    """A copy with other fields; no constructor runs, since leaves may be anything or missing."""
    changed = object.__new__(Decoder)
    for field in dataclasses.fields(Decoder):
        value = fields.get(field.name, getattr(decoder, field.name))
        object.__setattr__(changed, field.name, value)
    return changed


def with_precision(decoder: Decoder, dtype: Precision, stored: Precision | None = None) -> Decoder:
    """The same decoder computing in `dtype`, its arrays in `stored` (default: the same type)."""
    kept = jnp.dtype(stored or dtype)
    decoder = jax.tree.map(lambda x: x.astype(kept) if eqx.is_inexact_array(x) else x, decoder)
    return _changed(decoder, architecture=dataclasses.replace(decoder.architecture, dtype=dtype))


def with_gradient_checkpointing(decoder: Decoder) -> Decoder:
    """The same decoder, which computes its layers again for the gradient rather than keep them."""
    architecture = dataclasses.replace(decoder.architecture, gradient_checkpointing=True)
    return _changed(decoder, architecture=architecture)
