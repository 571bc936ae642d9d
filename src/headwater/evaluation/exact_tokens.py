"""Exact values of policies whose responses can all be listed."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.tokens import AbstractTokenNetwork
from headwater.environments.language.token_process import EveryResponse
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import next_log_probabilities, token_log_probabilities

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


# Values of tokens -------------------------------------------------------------------------------


def action_values(
    policy: AbstractTokenNetwork | None, responses: EveryResponse, values: Table
) -> PrefixTable:
    """What each next token leads to: the expectation of `values` if `policy` goes on after it.

    **Arguments:** `policy`: `None` goes on as well as is possible; `values`: of whole responses.

    **Returns:** a table whose logits are these expectations, so that
    `Combined([reference, table], [1, 1 / temperature])` is the reference tilted towards them.
    """
    if policy is None:
        return _backwards(responses, values, lambda found, _: jnp.max(found, axis=-1))
    log_probabilities = next_log_probabilities(policy.logits(responses.data.tokens))

    def averaged(found, place):
        # One response for each beginning: the first of those that go on from it.
        every = responses.vocabulary ** (responses.new_tokens - place)
        return jnp.sum(jnp.exp(log_probabilities[:, ::every, place]) * found, axis=-1)

    return _backwards(responses, values, averaged)


def network_of(policy: Table, responses: EveryResponse) -> PrefixTable:
    """The network that writes responses with these log-probabilities."""
    return _backwards(responses, policy, lambda found, _: jax.nn.logsumexp(found, axis=-1))


def _backwards(
    responses: EveryResponse, last: Table, before: Callable[[Array, int], Array]
) -> PrefixTable:
    """A table of numbers for every next token, from those of whole responses.

    **Arguments:** `before`: makes one number of those of all next tokens, `[prompt, beginning,
    token]`, after so many tokens of the response.
    """
    vocabulary, length = responses.vocabulary, responses.new_tokens
    network = PrefixTable(vocabulary, 1 + length)
    table, following = network.table, last
    for place in reversed(range(length)):
        beginnings = vocabulary**place
        found = following.reshape(-1, beginnings, vocabulary)
        # Those of the first prompt come first.
        texts = responses.data.tokens[:, :: vocabulary ** (length - place), : 1 + place]
        table = table.at[network.rows(texts)[..., -1]].set(found)
        following = before(found, place)
    return eqx.tree_at(lambda network: network.table, network, table)
