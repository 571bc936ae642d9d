"""How much better stored responses are than what a policy would have written."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import DataError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractHiddenStates
from headwater.ops.linear_algebra import solve


def prompt_values(
    network: AbstractHiddenStates,
    own: Completions,
    queries: Completions,
    *,
    ridge: float | Float[Array, ""] = 1e-3,
) -> Float[Array, " row"]:
    """The reward that a policy's responses to prompts can be expected to get.

    A ridge regression on the last hidden state of the prompt, within the rewards seen.

    **Arguments:** `network`: the policy's; `own`: its responses, judged, `[row, position]`;
    `queries`: texts whose prompts it is predicted for; `ridge`: penalty per row. Raises
    `DataError` if
    `own` has no rewards.
    """
    if own.reward is None:
        raise DataError("values of prompts are fitted to rewards, and these responses have none")
    reward = jnp.asarray(own.reward, jnp.float32)
    known, queried = _states(network, own), _states(network, queries)
    mean = jnp.mean(reward)
    rows, width = known.shape
    penalty = ridge * rows
    # By the smaller of the two systems: hidden states may be wider than there are rows.
    if rows <= width:
        dual = solve(known @ known.T + penalty * jnp.eye(rows), reward - mean)
        weights = known.T @ dual
    else:
        gram = known.T @ known + penalty * jnp.eye(width)
        weights = solve(gram, known.T @ (reward - mean))
    return jnp.clip(mean + queried @ weights, jnp.min(reward), jnp.max(reward))


def advantages(
    data: Completions, value: Float[Array, " row"]
) -> tuple[Completions, Float[Array, " row"]]:
    """The same texts with the advantage over `value` as their reward, and how often to draw each.

    Rows are drawn in proportion to what is positive of it, so that the others are dropped. Raises
    `DataError` if the texts have no rewards.
    """
    if data.reward is None:
        raise DataError("advantages need rewards, and these texts have none")
    found = jnp.asarray(data.reward, jnp.float32) - value
    data = Completions(data.tokens, data.response, found, data.log_probability)
    return data, jnp.maximum(found, 0.0)


def _states(network: AbstractHiddenStates, data: Completions) -> Float[Array, "row width"]:
    """Of the last token of each prompt."""

    def one(text: Completions):
        hidden = network.hidden(text.tokens[None])[0]
        return hidden[jnp.argmax(text.response) - 1].astype(jnp.float32)

    # The hidden states of all texts at once would be as many as their tokens times the width.
    texts = jax.tree.map(jnp.asarray, Completions(data.tokens, data.response))
    return jax.lax.map(one, texts, batch_size=64)
