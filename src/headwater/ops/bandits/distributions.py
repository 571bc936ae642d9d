"""From what arms are worth to the probabilities with which they are pulled."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def best_arms(values: Float[Array, "*some arm"]) -> Float[Array, "*some arm"]:
    """The arms of the highest value, all alike."""
    best = values == jnp.max(values, axis=-1, keepdims=True)
    return best / jnp.sum(best, axis=-1, keepdims=True)


def with_uniform(
    probabilities: Float[Array, "*some arm"], share: float | Float[Array, ""]
) -> Float[Array, "*some arm"]:
    """A distribution of which a `share` is spread over all arms."""
    return (1.0 - share) * probabilities + share / probabilities.shape[-1]


def inverse_gap_weights(
    values: Float[Array, " arm"], weight: float | Float[Array, ""]
) -> Float[Array, " arm"]:
    r"""$p_a = 1 / (K + \gamma (\hat y_b - \hat y_a))$, and the rest for the best arm $b$.

    **Arguments:** `values`: $\hat y$, more is better; `weight`: γ, at least zero.
    """
    count = values.shape[-1]
    best = jnp.argmax(values)
    shares = 1.0 / (count + weight * (values[best] - values))
    others = jnp.where(jnp.arange(count) == best, 0.0, shares)
    # The others cannot sum to more than one, except by rounding.
    return others.at[best].set(jnp.maximum(1.0 - jnp.sum(others), 0.0))


def frequencies_of_best(samples: Float[Array, "sample arm"]) -> Float[Array, " arm"]:
    """How often each arm is the best, over samples of what arms are worth."""
    return jnp.mean(best_arms(samples), axis=0)


def exponential_weights(
    losses: Float[Array, "*some choice"], rate: float | Float[Array, ""]
) -> Float[Array, "*some choice"]:
    r"""$p_i \propto e^{-\eta L_i}$."""
    return jax.nn.softmax(-rate * losses)
