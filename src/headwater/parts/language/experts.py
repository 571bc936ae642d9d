"""What methods that learn decoders with experts share."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.decoders.changes import with_experts
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.experts import Routing
from headwater.ops.language.tokens import of_tokens


def expert_decoder(
    problem: TokenProblem, method: str, experts: int, *, key: PRNGKeyArray, **options
) -> Decoder:
    """The decoder that `method` learns: with the experts that it has, or else with new ones.

    **Arguments:** `experts`, `options`: of `with_experts`, for a decoder that has none. Raises
    `SpecificationError` for another network.
    """
    network = problem.network
    if not isinstance(network, Decoder):
        raise SpecificationError(
            f"{method} learns decoders with experts, and {type(network).__name__} is no decoder"
        )
    if network.architecture.experts:
        return network
    return with_experts(network, experts, key=key, **options)


def decoder_of(network: AbstractTokenNetwork) -> Decoder:
    """The network, which is a decoder."""
    assert isinstance(network, Decoder)
    return network


def routed_log_probabilities(
    network: AbstractTokenNetwork, data: Completions
) -> tuple[Float[Array, "*batch position"], Routing]:
    """Of each token of the responses, within the experts' capacity, and what routers decided.

    Raises `SpecificationError` for a network that reads batches in parts.
    """
    decoder = decoder_of(network)
    if decoder.gradient_accumulation > 1:
        raise SpecificationError(
            "routers share out the tokens of a whole batch among experts, so that it is not read "
            "in parts: leave out gradient_accumulation"
        )
    hidden, routing = decoder.routed_hidden(jnp.asarray(data.tokens))
    return of_tokens(decoder.unembed(hidden), data), routing


def tokens_of(data: Completions) -> Bool[Array, " token"]:
    """Which tokens of a routing belong to texts, their last response included, not to padding."""
    response = jnp.asarray(data.response)
    after = jnp.cumsum(response[..., ::-1], axis=-1)[..., ::-1]
    return (after > 0).reshape(-1)
