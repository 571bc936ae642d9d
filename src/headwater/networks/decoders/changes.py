"""Decoders made of others: with experts, with other layers, in another precision."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.networks.decoders.architecture import Precision
from headwater.networks.decoders.blocks import AbstractLinear, Blocks, Linear
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.experts import ExpertWeights, fresh_router

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


def without_tokens(decoder: Decoder) -> Decoder:
    """The decoder with a vocabulary of one token, which is zero: its body, for `hidden_of_vectors`.

    What was learned of a vocabulary is left out, which most of a small language model is.
    """
    nothing = jnp.zeros((1, decoder.width), decoder.embedding.dtype)
    architecture = dataclasses.replace(decoder.architecture, vocabulary=1, tied=True)
    return _changed(decoder, embedding=nothing, unembedding=None, architecture=architecture)


def with_gradient_accumulation(decoder: Decoder, parts: int) -> Decoder:
    """The same decoder, which reads a batch in so many parts for its gradient."""
    architecture = dataclasses.replace(decoder.architecture, gradient_accumulation=parts)
    return _changed(decoder, architecture=architecture)


def with_gradient_checkpointing(decoder: Decoder) -> Decoder:
    """The same decoder, which computes its layers again for the gradient rather than keep them."""
    architecture = dataclasses.replace(decoder.architecture, gradient_checkpointing=True)
    return _changed(decoder, architecture=architecture)
