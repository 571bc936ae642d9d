"""Exact values of policies whose responses can all be listed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.tokens import AbstractTokenNetwork
from headwater.environments.language.token_process import EveryResponse
from headwater.ops.language.tokens import token_log_probabilities

Table = Float[Array, "prompt response"]


def log_policy(network: AbstractTokenNetwork, responses: EveryResponse) -> Table:
    """Log-probability of each response under the network's policy."""
    return jnp.sum(token_log_probabilities(network, responses.data), axis=-1)


def best_log_policy(
    reference: Table, reward: Table, temperature: float | Float[Array, ""]
) -> Table:
    """Of the policy with the highest reward less `temperature` times KL to the reference."""
    return jax.nn.log_softmax(reference + reward / temperature, axis=-1)


def expected(policy: Table, values: Table) -> Float[Array, " prompt"]:
    """Expectation of `values` under the policy with these log-probabilities."""
    return jnp.sum(jnp.exp(policy) * values, axis=-1)


def divergence(policy: Table, other: Table) -> Float[Array, " prompt"]:
    """KL(policy‖other) of two tables of log-probabilities, in nats."""
    return expected(policy, policy - other)
