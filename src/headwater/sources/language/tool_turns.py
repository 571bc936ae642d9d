"""Texts in which a policy calls tools, and tools answer."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork
from headwater.environments.language.simulated_tools import AbstractTools
from headwater.ops.language.tokens import next_log_probabilities


def in_turns(
    network: AbstractTokenNetwork,
    tools: AbstractTools,
    question: Int[Array, " row"],
    *,
    key: PRNGKeyArray,
) -> Completions:
    """Texts in which `network` calls the tools in turns.

    Calls alone are response: what the tools bring is read and not learned. Other tokens than calls
    are never drawn, and log-probabilities are among calls.
    """
    turns, first = tools.turns, tools.questions
    rows = question.shape[0]
    tokens = jnp.zeros((rows, 1 + 2 * turns), jnp.int32).at[:, 0].set(question)
    chance = jnp.zeros(tokens.shape)
    state = tools.begin(question)
    for turn, turn_key in enumerate(jax.random.split(key, turns)):
        place = 1 + 2 * turn
        logits = network.logits(tokens)[:, place - 1, first : first + tools.calls]
        logs = next_log_probabilities(logits)
        call = jax.random.categorical(turn_key, logs).astype(jnp.int32)
        state, answer = tools.call(state, call)
        own = jnp.take_along_axis(logs, call[:, None], axis=-1)[:, 0]
        tokens = tokens.at[:, place].set(first + call)
        tokens = tokens.at[:, place + 1].set(first + tools.calls + answer)
        chance = chance.at[:, place].set(own)
    called = jnp.broadcast_to(jnp.arange(tokens.shape[1]) % 2 == 1, tokens.shape)
    return Completions(tokens, called, log_probability=chance)
