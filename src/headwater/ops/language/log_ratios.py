"""Log-ratios of compared responses: what every pairwise loss of a language model is made of."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.fields import check_choice
from headwater.core.method import Metrics
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import AbstractTokenNetwork
from headwater.ops.language.tokens import token_log_probabilities


class LogRatio(NamedTuple):
    """Of whole responses: log π, and ρ = log π - log reference, tokens added up."""

    log_probability: Float[Array, "*batch"]
    ratio: Float[Array, "*batch"]


def log_ratio(
    network: AbstractTokenNetwork, reference: AbstractTokenNetwork, data: Completions
) -> LogRatio:
    """Of each response; no gradient goes through the reference."""
    own = jnp.sum(token_log_probabilities(network, data), axis=-1)
    other = jnp.sum(token_log_probabilities(reference, data), axis=-1)
    return LogRatio(own, own - jax.lax.stop_gradient(other))


def log_ratios(
    network: AbstractTokenNetwork, reference: AbstractTokenNetwork, data: CompletionComparisons
) -> tuple[LogRatio, LogRatio]:
    """Of chosen and rejected responses. What comes back is the pairwise losses' whole input."""
    return log_ratio(network, reference, data.chosen), log_ratio(network, reference, data.rejected)


Utility = Literal["logistic", "linear", "log", "inverse"]
"""What a margin x between two rewards is worth: log σ(x), x, log x, -1/x."""

_LEAST_MARGIN = 0.01


def utility(margin: Float[Array, "*batch"], kind: Utility) -> Float[Array, "*batch"]:
    """Of the margin of the better response over the worse one.

    `log` and `inverse` have no value at zero: below 0.01 they go on as straight lines.
    """
    check_choice(kind, Utility, "kind")
    if kind == "logistic":
        return jax.nn.log_sigmoid(margin)
    if kind == "linear":
        return margin
    positive = jnp.maximum(margin, _LEAST_MARGIN)
    missing = (margin - positive) / _LEAST_MARGIN
    if kind == "log":
        return jnp.log(positive) + missing
    return -1.0 / positive + missing / _LEAST_MARGIN


def comparison_metrics(chosen: LogRatio, rejected: LogRatio) -> Metrics:
    """What to watch while learning from comparisons.

    Where both log-ratios fall, chosen responses lose probability to ones that nobody compared.
    """
    return {
        "chosen_log_ratio": jnp.mean(chosen.ratio),
        "rejected_log_ratio": jnp.mean(rejected.ratio),
        "accuracy": jnp.mean((chosen.ratio > rejected.ratio).astype(jnp.float32)),
    }
