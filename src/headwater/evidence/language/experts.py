"""What claims about decoders with experts share: training on a task of one's own, and losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.method import AbstractMethod
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.environments.language.token_tasks import AbstractTextTask
from headwater.evidence.claim import with_numbers
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.runs.learn import learn
from headwater.sources.language.fresh_texts import FreshTexts


def trained(
    method: AbstractMethod,
    architecture: Architecture,
    task: AbstractTextTask,
    updates: int,
    rows: int,
    *,
    rate: float,
    key: PRNGKeyArray,
):
    """The last state of a method that begins with a new decoder, its rate falling to zero.

    With no updates it is the first state, and nothing that learns is compiled.
    """
    network_key, key = jax.random.split(key)
    method = with_numbers(method, learning_rate=rate, warmup_updates=20.0, decay_updates=updates)
    problem = TokenProblem(Decoder(architecture, key=network_key), task.end)
    if not updates:
        return method.init(problem, key=key)
    return learn(method, problem, FreshTexts(task, rows), updates, key=key).state


def loss_on(network: AbstractTokenNetwork, data: Completions) -> Float[Array, ""]:
    """Nats per token of the responses."""
    own = token_log_probabilities(network, data)
    return -averaged(own, jnp.asarray(data.response), "token")


def each_run(one: Callable[[PRNGKeyArray], dict], seed: int, runs: int) -> dict:
    """What `one` finds for each of `runs` keys, one after the other in one compiled program."""
    keys = jax.random.split(jax.random.key(seed), runs)
    return jax.device_get(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))
