"""Fully connected networks for learning from one step at a time."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.ops.products import product

_LEAK = 0.01


class SparseNetwork(eqx.Module):
    """Layers that begin sparse, each hidden one normalised (nothing learned) before a leaky ReLU.

    Weights begin uniform in ±1/√fan-in; then for each output a random share of the inputs, rounded
    up, is set to zero, but for one input at least. Biases begin at zero.

    **Arguments:** `input_size`, `output_size`, `hidden_sizes`: sizes; without hidden ones it is
    linear; `sparsity`: the share of zeros.
    """

    weights: tuple[Float[Array, "fan_in fan_out"], ...]
    biases: tuple[Float[Array, " fan_out"], ...]

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_sizes: tuple[int, ...],
        *,
        sparsity: float | Float[Array, ""],
        key: PRNGKeyArray,
    ):
        sizes = list(pairwise((input_size, *hidden_sizes, output_size)))
        keys = jax.random.split(key, len(sizes))
        self.weights = tuple(
            _sparse(fan_in, fan_out, sparsity, key) for (fan_in, fan_out), key in zip(sizes, keys)
        )
        self.biases = tuple(jnp.zeros(fan_out) for _, fan_out in sizes)

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """The output for inputs with any leading axes."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = product(x, weight)
            x = x + jnp.broadcast_to(bias, x.shape)
            if i < len(self.weights) - 1:
                x = jax.nn.leaky_relu(_normalised(x), _LEAK)
        return x


def _sparse(fan_in: int, fan_out: int, sparsity, key) -> Float[Array, "fan_in fan_out"]:
    weight_key, order_key = jax.random.split(key)
    bound = fan_in**-0.5
    weight = jax.random.uniform(weight_key, (fan_in, fan_out), minval=-bound, maxval=bound)
    # The place of each input in a random order, one order for each output. Ranks rather than
    # positions, so that the share may be swept.
    order = jnp.argsort(jax.random.uniform(order_key, (fan_in, fan_out)), axis=0)
    rank = jnp.argsort(order, axis=0)
    zeros = jnp.minimum(jnp.ceil(sparsity * fan_in), fan_in - 1)
    return jnp.where(rank < zeros, 0.0, weight)


def _normalised(x: Array) -> Array:
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5)
