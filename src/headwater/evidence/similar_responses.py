"""Comparisons of responses that resemble each other, in a log-linear policy that is exact."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons
from headwater.environments.language.token_process import EveryResponse, every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.networks.token_table import LogLinearResponses

_RESPONSES, _FEATURES, _COMPARED = 40, 12, 5


class SimilarResponses(NamedTuple):
    """A policy over listed responses, some of which are compared with each other.

    **Arguments:** `responses`: all of them; `network`: the policy that training begins with;
    `comparisons`: each chosen response with each rejected one.
    """

    responses: EveryResponse
    network: LogLinearResponses
    comparisons: CompletionComparisons

    def logs(self, agent: Agent) -> tuple[Float[Array, " chosen"], Float[Array, " rejected"]]:
        """Log-probabilities of the chosen and of the rejected responses under an agent."""
        policy = log_policy(agent.network(), self.responses)[0]
        return policy[:_COMPARED], policy[_COMPARED : 2 * _COMPARED]


def similar_responses(offset: Float[Array, ""] | float, *, key: PRNGKeyArray) -> SimilarResponses:
    """Draws features, those of compared responses correlated by 0.8.

    **Arguments:** `offset`: how much likelier the compared responses are than others beforehand, as
    a logit.
    """
    responses = every_response(_RESPONSES, 1)
    own_key, common_key = jax.random.split(key)
    common = jax.random.normal(common_key, (_FEATURES,))
    features = jax.random.normal(own_key, (_RESPONSES, _FEATURES))
    alike = jnp.sqrt(0.8) * common[None] + jnp.sqrt(0.2) * features[: 2 * _COMPARED]
    features = features.at[: 2 * _COMPARED].set(alike)
    beforehand = jnp.where(jnp.arange(_RESPONSES) < 2 * _COMPARED, offset, 0.0)
    network = LogLinearResponses(features, jnp.zeros(_FEATURES), beforehand)
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(_COMPARED), jnp.arange(_COMPARED)), -1)
    better, worse = pairs.reshape(-1, 2).T + jnp.asarray([[0], [_COMPARED]])
    rows = [jax.tree.map(lambda x, at=at: x[0, at], responses.data) for at in (better, worse)]
    return SimilarResponses(responses, network, CompletionComparisons(*rows))
