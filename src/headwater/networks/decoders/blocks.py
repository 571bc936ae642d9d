"""What the layers of a decoder are made of: linear maps and norms, all layers along one axis."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.networks.decoders.architecture import Architecture, Precision
from headwater.networks.experts import Router, fresh_router


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
        return fresh_norm(a, (layers, width), dtype) if present else None

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


def fresh_norm(architecture: Architecture, shape: tuple[int, ...], dtype) -> Norm:
    """The norm of this shape that training begins with: it only normalises."""
    a = architecture
    if a.norm == "weightless":
        return Norm(None, None, a.epsilon)
    scale = jnp.zeros(shape, dtype) if a.centred_norms else jnp.ones(shape, dtype)
    offset = jnp.zeros(shape, dtype) if a.norm == "layer" else None
    return Norm(scale, offset, a.epsilon, a.centred_norms)
