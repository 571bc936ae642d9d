"""What one layer of a decoder computes, whether it reads whole texts or one more token."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.blocks import AbstractLinear, Blocks, Norm
from headwater.networks.experts import Routing, dispatched, mixed
from headwater.networks.rotary import Turn, rotary_frequencies, rotary_turn, turned


class Kind(NamedTuple):
    """What a layer is besides its weights, or each of several; `None` where all are alike.

    **Arguments:** `local`: whether it keeps to the window; `rotary`: whether it turns by positions.
    """

    local: Array | None
    rotary: Array | None

    def choose(self, of_local: Array, of_others: Array) -> Array:
        """One of two, by whether the layer keeps to the window (all do unless it is said)."""
        return of_local if self.local is None else jnp.where(self.local, of_local, of_others)


NEVER = jnp.finfo(jnp.float32).min
"""Where attention may not look; finite, so that no gradient is NaN."""


def first_place(text: Int[Array, "row position"]) -> Int[Array, "row position"]:
    """Where in its row the text begins that each token belongs to."""
    place = jnp.broadcast_to(jnp.arange(text.shape[-1]), text.shape)
    begins = jnp.diff(text, axis=-1, prepend=text[:, :1] - 1) != 0
    return jax.lax.cummax(jnp.where(begins, place, 0), axis=1)


def lengths_of_texts(text: Int[Array, "row position"]) -> Int[Array, "row position"]:
    """Tokens of the text that each token belongs to."""
    place = jnp.arange(text.shape[-1])
    ends = jnp.diff(text, axis=-1, append=text[:, -1:] - 1) != 0
    last = jax.lax.cummin(jnp.where(ends, place, text.shape[-1]), axis=1, reverse=True)
    return last + 1 - first_place(text)


def _heads(x, architecture: Architecture):
    return x.reshape(*x.shape[:-1], -1, architecture.head_width)


def normalised(norm: Norm | None, x):
    """`x` behind the norm, if there is one."""
    return x if norm is None else norm(x)


def bounded(x, bound: float | None):
    """Never beyond the bound, and smooth."""
    return x if bound is None else bound * jnp.tanh(x / bound)


def added(x, y, norm: Norm | None, architecture: Architecture, scale: float | Array = 1.0):
    """What half a layer wrote, added to the residual stream."""
    scale = jnp.asarray(scale * architecture.residual_scale, x.dtype)
    return x + scale * normalised(norm, y)


def attending(block: Blocks, y, architecture: Architecture, turn: Turn | None):
    """Queries, keys and values `[..., head, head_width]`."""
    a = architecture
    query, key, value = block.query(y), block.key(y), block.value(y)
    if a.query_bound is not None:
        query, key, value = (
            jnp.clip(each, -a.query_bound, a.query_bound) for each in (query, key, value)
        )
    if a.query_norm == "whole":
        query, key = normalised(block.query_norm, query), normalised(block.key_norm, key)
    query, key, value = (_heads(each, a) for each in (query, key, value))
    if a.query_norm == "head":
        query, key = normalised(block.query_norm, query), normalised(block.key_norm, key)
    return turned(query, turn), turned(key, turn), value


def scores_of(product: str, query: Array, key: Array, a: Architecture) -> Float[Array, "..."]:
    """Products of queries and keys, by the axes that `product` names, scaled and bounded."""
    scores = jnp.einsum(product, query, key, preferred_element_type=jnp.float32)
    return bounded(scores * a.attention_scale, a.attention_bound)


def fed_forward(
    block: Blocks, x, architecture: Architecture, slots: int | None = None
) -> tuple[Array, Routing | None]:
    """What is added to each token `[token, width]`, and what the router decided, if there is one.

    **Arguments:** `slots`: tokens that an expert takes at most (default: all).
    """
    y = normalised(block.feed_forward_norm, x)
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


class Turns(NamedTuple):
    """How tokens are turned in most layers, and in those that keep to a window."""

    others: Turn | None
    local: Turn | None


def turns_of(architecture: Architecture, position: Int[Array, " token"], length: Any) -> Turns:
    """**Arguments:** `length`: of the text that each token is of."""
    a = architecture
    if a.positions != "rotary":
        return Turns(None, None)
    frequency = rotary_frequencies(a.rotary_base, a.rotary_width, a.rotary_scaling, length)
    others = rotary_turn(position, frequency, a.rotary_scaling)
    if a.local_rotary_base is None:
        return Turns(others, None)
    frequency = rotary_frequencies(a.local_rotary_base, a.rotary_width)
    return Turns(others, rotary_turn(position, frequency, None))


def turn_of_layer(turns: Turns, kind: Kind) -> Turn | None:
    """How tokens are turned in one layer."""
    turn = turns.others
    if turn is None:
        return None
    if turns.local is not None:
        turn = kind.choose(turns.local[0], turn[0]), kind.choose(turns.local[1], turn[1])
    if kind.rotary is None:
        return turn
    return jnp.where(kind.rotary, turn[0], 1.0), jnp.where(kind.rotary, turn[1], 0.0)
