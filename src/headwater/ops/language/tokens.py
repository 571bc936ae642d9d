"""Probabilities of texts: one function for whoever samples and whoever trains."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from headwater.core.fields import check_choice
from headwater.core.records import Completions
from headwater.core.tokens import AbstractPacked, AbstractTokenNetwork
from headwater.ops.language.accumulation import in_parts, texts_in_parts
from headwater.ops.language.packing import packed, unpacked

Average = Literal["token", "sequence", "constant"]
"""How losses of tokens are averaged: over all tokens of the batch; over the tokens of each response
and then over responses; or added up in each response, over a fixed length, and then averaged."""


def next_log_probabilities(
    logits: Float[Array, "*batch vocabulary"], temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "*batch vocabulary"]:
    """Of every next token, in float32. Sampler and trainer both use this."""
    return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)


def token_log_probabilities(
    network: AbstractTokenNetwork,
    data: Completions,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*batch position"]:
    """Of each token of the responses, given what comes before it; zero elsewhere."""
    return per_token(network, data, lambda logits, data: of_tokens(logits, data, temperature))


def per_token(
    network: AbstractTokenNetwork,
    data: Completions,
    function: Callable[[Float[Array, "*batch position vocabulary"], Completions], Array],
) -> Shaped[Array, "*batch position"]:
    """`function(logits, texts)`, a number for each token of the responses; zero elsewhere.

    Packed texts are read together, without padding, where the network can, and in as many parts as
    it says: `function` gets what it reads then, and must look at no more than a token and the
    logits before it.
    """
    parts = network.gradient_accumulation
    if data.packing is None or not isinstance(network, AbstractPacked):

        def of_texts(texts: Completions) -> Array:
            return function(network.logits(texts.tokens), texts)

        texts = Completions(jnp.asarray(data.tokens), jnp.asarray(data.response))
        values = texts_in_parts(of_texts, texts, parts)
        return jnp.where(texts.response, values, 0)
    reader: AbstractPacked = network

    def of_rows(rows: tuple[Completions, Array]) -> Array:
        together, text = rows
        logits = reader.unembed(reader.packed_hidden(together.tokens, text))
        return function(logits, together)

    return unpacked(in_parts(of_rows, packed(data, data.packing), parts), data, data.packing)


def of_tokens(
    logits: Float[Array, "*batch position vocabulary"],
    data: Completions,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*batch position"]:
    """`token_log_probabilities` where the logits of `data.tokens` are at hand."""
    tokens, response = jnp.asarray(data.tokens), jnp.asarray(data.response)
    logits = logits[..., :-1, :].astype(jnp.float32) / temperature
    chosen = jnp.take_along_axis(logits, tokens[..., 1:, None], axis=-1)[..., 0]
    values = chosen - jax.nn.logsumexp(logits, axis=-1)
    # The first token follows nothing.
    values = jnp.concatenate([jnp.zeros_like(values[..., :1]), values], axis=-1)
    return jnp.where(response, values, 0.0)


def preceding(values: Float[Array, "*batch position"]) -> Float[Array, "*batch position"]:
    """What stands at the token before each, which predicts it; zero at the first."""
    return jnp.concatenate([jnp.zeros_like(values[..., :1]), values[..., :-1]], axis=-1)


def lengths(data: Completions) -> Int[Array, "*batch"]:
    """Tokens in each response."""
    return jnp.sum(data.response, axis=-1)


def averaged(
    values: Float[Array, "*batch position"],
    mask: Bool[Array, "*batch position"],
    by: Average,
    length: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """Average of what stands where `mask` is true.

    **Arguments:** `by`: see `Average`; `length`: what the sums are divided by for `"constant"`.
    """
    check_choice(by, Average, "by")
    values = jnp.where(mask, values, 0.0)
    if by == "token":
        return jnp.sum(values) / jnp.maximum(jnp.sum(mask), 1)
    sums = jnp.sum(values, axis=-1)
    if by == "sequence":
        return jnp.mean(sums / jnp.maximum(jnp.sum(mask, axis=-1), 1))
    return jnp.mean(sums) / length


# Kullback–Leibler divergence --------------------------------------------------------------------

Estimator = Literal["k1", "k2", "k3"]


def divergence_estimate(
    log_ratio: Float[Array, "*batch"], estimator: Estimator
) -> Float[Array, "*batch"]:
    r"""An estimate of KL(π‖reference) from a sample of π.

    With ρ = log π - log reference: `k1` is ρ, `k2` ρ²/2, `k3` exp(-ρ) - 1 + ρ. `k1` and `k3` are
    unbiased. **Not for descending**: with the sample held fixed the gradient of `k1` is zero on
    average, and that of `k3` is of KL(reference‖π). `divergence_surrogate` has the right one.
    """
    check_choice(estimator, Estimator, "estimator")
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    return jnp.expm1(-log_ratio) + log_ratio


def divergence_surrogate(
    log_probability: Float[Array, "*batch"], reference: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    r"""What has the gradient of KL(π‖reference) on average over samples of π: ρ²/2.

    Its value estimates nothing; log `divergence_estimate` instead.
    """
    return 0.5 * (log_probability - jax.lax.stop_gradient(reference)) ** 2
