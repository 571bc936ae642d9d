"""How well rewards and policies agree with preferences."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.method import AbstractCompletionScorer, Agent
from headwater.core.records import CompletionComparisons
from headwater.core.tokens import AbstractTokenNetwork
from headwater.evaluation.exact_tokens import Table, divergence, expected
from headwater.ops.language.log_ratios import log_ratios

PreferenceTable = Float[Array, "prompt response response"]
"""How often the first response is preferred to the second."""


def implicit_accuracy(
    network: AbstractTokenNetwork, reference: AbstractTokenNetwork, data: CompletionComparisons
) -> Float[Array, ""]:
    """How often log π - log reference is higher for the chosen response; ties count half."""
    chosen, rejected = log_ratios(network, reference, data)
    return _accuracy(chosen.ratio - rejected.ratio)


def explicit_accuracy(agent: Agent, data: CompletionComparisons) -> Float[Array, ""]:
    """How often a learned reward is higher for the chosen response; ties count half.

    Raises `TypeError` if the agent rates no responses.
    """
    if not isinstance(agent.method, AbstractCompletionScorer):
        raise TypeError(f"{type(agent.method).__name__} rates no responses")
    chosen = agent.method.rate(agent.state, data.chosen)
    return _accuracy(chosen - agent.method.rate(agent.state, data.rejected))


def _accuracy(margin: Float[Array, "*batch"]) -> Float[Array, ""]:
    return jnp.mean(0.5 * (1.0 + jnp.sign(margin)))


# Games between two policies ---------------------------------------------------------------------


def preferred_to(policy: Table, preference: PreferenceTable) -> Table:
    """How often each response is preferred to one of the policy with these log-probabilities."""
    return jnp.einsum("xyz,xz->xy", preference, jnp.exp(policy))


def best_response_value(
    policy: Table,
    reference: Table,
    preference: PreferenceTable,
    kl_weight: float | Float[Array, ""],
) -> Float[Array, " prompt"]:
    """What the best other policy gets: how often it is preferred, less its weighted divergence."""
    worth = preferred_to(policy, preference) / kl_weight
    return kl_weight * jax.nn.logsumexp(reference + worth, axis=-1)


def duality_gap(
    policy: Table,
    reference: Table,
    preference: PreferenceTable,
    kl_weight: float | Float[Array, ""],
) -> Float[Array, " prompt"]:
    """What both players together could gain by leaving this policy; zero at the equilibrium.

    Of the game in which each player is paid how often it is preferred, less `kl_weight`
    times its divergence from the reference. `preference` has to be one: P(y, y') + P(y', y) = 1.
    """
    own = expected(policy, preferred_to(policy, preference))
    own = own - kl_weight * divergence(policy, reference)
    return 2.0 * (best_response_value(policy, reference, preference, kl_weight) - own)


def mirror_step(
    policy: Table,
    reference: Table,
    preference: PreferenceTable,
    kl_weight: float | Float[Array, ""],
    iterate_weight: float | Float[Array, ""],
) -> Table:
    """The policy that one exact round of INPO makes of this one."""
    share = kl_weight / iterate_weight
    logits = share * reference + (1.0 - share) * policy
    logits = logits + preferred_to(policy, preference) / iterate_weight
    return jax.nn.log_softmax(logits, axis=-1)
