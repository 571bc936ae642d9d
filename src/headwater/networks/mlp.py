"""Multilayer perceptrons, alone and in ensembles."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.fields import check_choice
from headwater.ops.linear_algebra import random_orthogonal
from headwater.ops.products import product

Initialiser = Literal["lecun", "torch", "orthogonal"]
"""How hidden weights start. `torch`: uniform ±1/√fan-in, biases too, as PyTorch's linear layers;
`lecun`: normal with variance 1/fan-in, zero biases; `orthogonal`: scale √2, zero biases."""

Activation = Literal["relu", "tanh", "gelu", "silu"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


class MLP(eqx.Module):
    """Fully connected layers with an activation (and a layer norm, if asked for) between them.

    **Arguments:** `input_size`, `output_size`, `hidden_sizes`: sizes; `activation`; `layer_norm`:
    normalise each hidden layer, `"before"` or `"after"` its activation; `initialiser`;
    `last_scale`: if given, last weights and biases start uniform in ±`last_scale`; `bias`: if
    given, hidden biases start at this value.
    """

    weights: tuple[Float[Array, "fan_in fan_out"], ...]
    biases: tuple[Float[Array, " fan_out"], ...]
    scales: tuple[Float[Array, " width"], ...]
    offsets: tuple[Float[Array, " width"], ...]
    activation: Activation = eqx.field(static=True)
    layer_norm: Literal["before", "after"] | None = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_sizes: tuple[int, ...],
        *,
        key: PRNGKeyArray,
        activation: Activation = "relu",
        layer_norm: Literal["before", "after"] | None = None,
        initialiser: Initialiser = "torch",
        last_scale: float | None = None,
        bias: float | None = None,
    ):
        check_choice(activation, Activation, "activation")
        check_choice(initialiser, Initialiser, "initialiser")
        if layer_norm is not None:
            check_choice(layer_norm, ("before", "after"), "layer_norm")
        sizes = (input_size, *hidden_sizes, output_size)
        keys = jax.random.split(key, len(sizes) - 1)
        weights, biases = [], []
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            weight_key, bias_key = jax.random.split(keys[i])
            last = i == len(sizes) - 2
            weight, offset = _start(weight_key, bias_key, fan_in, fan_out, initialiser)
            if bias is not None and not last:
                offset = jnp.full((fan_out,), bias, jnp.float32)
            if last_scale is not None and last:
                weight = jax.random.uniform(
                    weight_key, (fan_in, fan_out), minval=-last_scale, maxval=last_scale
                )
                offset = jax.random.uniform(
                    bias_key, (fan_out,), minval=-last_scale, maxval=last_scale
                )
            weights.append(weight)
            biases.append(offset)
        normalised = hidden_sizes if layer_norm else ()
        self.weights, self.biases = tuple(weights), tuple(biases)
        self.scales = tuple(jnp.ones(width) for width in normalised)
        self.offsets = tuple(jnp.zeros(width) for width in normalised)
        self.activation, self.layer_norm = activation, layer_norm

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """The output for inputs with any leading axes."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = product(x, weight)
            x = x + jnp.broadcast_to(bias, x.shape)
            if i < len(self.weights) - 1:
                if self.layer_norm == "before":
                    x = self._normalise(x, i)
                x = _ACTIVATIONS[self.activation](x)
                if self.layer_norm == "after":
                    x = self._normalise(x, i)
        return x

    def _normalise(self, x: Array, i: int) -> Array:
        mean = jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5)
        scale = jnp.broadcast_to(self.scales[i], x.shape)
        return x * scale + jnp.broadcast_to(self.offsets[i], x.shape)


def _start(weight_key, bias_key, fan_in, fan_out, initialiser):
    shape = (fan_in, fan_out)
    if initialiser == "torch":
        bound = fan_in**-0.5
        return (
            jax.random.uniform(weight_key, shape, minval=-bound, maxval=bound),
            jax.random.uniform(bias_key, (fan_out,), minval=-bound, maxval=bound),
        )
    if initialiser == "orthogonal":
        return random_orthogonal(weight_key, shape, scale=2.0**0.5), jnp.zeros(fan_out)
    return jax.random.normal(weight_key, shape) * fan_in**-0.5, jnp.zeros(fan_out)


class Ensemble(eqx.Module):
    """Several networks of one shape, their parameters stacked along a leading `member` axis."""

    stacked: eqx.Module

    def __init__(
        self, build: Callable[[PRNGKeyArray], eqx.Module], members: int, *, key: PRNGKeyArray
    ):
        self.stacked = jax.vmap(build)(jax.random.split(key, members))

    def __call__(self, *inputs: Array) -> Float[Array, "member ..."]:
        """Every member's output for the same inputs, stacked along a leading axis."""
        return jax.vmap(lambda network: network(*inputs))(self.stacked)

    def each(self, function: Callable[[eqx.Module], Array]) -> Float[Array, "member ..."]:
        """`function` of every member, stacked along a leading axis."""
        return jax.vmap(function)(self.stacked)
