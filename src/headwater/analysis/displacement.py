"""Whether learning from a comparison lowers the chosen response, and which comparisons would."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.analysis.registry import analysis
from headwater.core.errors import SpecificationError
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import AbstractHiddenStates, AbstractTokenNetwork
from headwater.ops.language.log_ratios import log_ratios
from headwater.ops.language.tokens import lengths


@analysis(paper="razin2025unintentional")
def ches(
    network: AbstractTokenNetwork, data: CompletionComparisons, *, normalise_lengths: bool = False
) -> Float[Array, "*batch"]:
    r"""Centred hidden embedding similarity: the higher, the more will DPO lower what was chosen.

    $\langle S^+, S^-\rangle - \|S^+\|^2$, where S adds up the hidden states that the tokens of a
    response were predicted from: from the prompt's last token to the last but one of the response.

    **Arguments:** `normalise_lengths`: take means in place of sums, to compare pairs of different
    lengths; to filter data, keep those with the lowest values.

    Raises `SpecificationError` if the network shows no hidden states.
    """
    chosen = _summed(network, data.chosen, normalise_lengths)
    rejected = _summed(network, data.rejected, normalise_lengths)
    return jnp.sum(chosen * rejected, axis=-1) - jnp.sum(chosen**2, axis=-1)


@analysis(paper="razin2025unintentional")
def displacement(
    network: AbstractTokenNetwork, reference: AbstractTokenNetwork, data: CompletionComparisons
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """By how much the log-probabilities of chosen and of rejected responses changed in training.

    Likelihood is displaced where the first is negative.
    """
    chosen, rejected = log_ratios(network, reference, data)
    return chosen.ratio, rejected.ratio


def _summed(network: AbstractTokenNetwork, data: Completions, mean: bool):
    if not isinstance(network, AbstractHiddenStates):
        raise SpecificationError(
            f"CHES reads hidden states, which {type(network).__name__} does not show"
        )
    hidden = network.hidden(jnp.asarray(data.tokens)).astype(jnp.float32)
    follows = jnp.asarray(data.response)[..., 1:, None]
    total = jnp.sum(jnp.where(follows, hidden[..., :-1, :], 0.0), axis=-2)
    return total / jnp.maximum(lengths(data), 1)[..., None] if mean else total
