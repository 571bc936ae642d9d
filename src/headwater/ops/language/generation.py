"""Writing text: one token after the other, compiled whole."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import (
    AbstractIncremental,
    AbstractTokenNetwork,
    Prompts,
    position_mask,
)
from headwater.ops.language.tokens import next_log_probabilities


def generate(
    network: AbstractTokenNetwork,
    prompts: Prompts,
    new_tokens: int,
    *,
    key: PRNGKeyArray,
    end: int | tuple[int, ...] = -1,
    samples: int | None = None,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    greedy: bool = False,
    limit: Int[Array, " row"] | None = None,
    width: int | None = None,
) -> Completions:
    """Responses to prompts, with the log-probability of every token when it was drawn.

    **Arguments:** `prompts`: a batch `[row]`; a forced beginning of the response belongs to the
    prompt; `new_tokens`: at most; `end`: the token that ends a response, or all that do (-1: none
    does); `samples`: how many for each prompt (default: one, without an axis for it);
    `temperature`: what logits are divided by; `top_k`, `top_p`: draw only from the likeliest so
    many tokens, from the likeliest ones that hold this probability; `greedy`: take the likeliest
    token; `limit`: tokens in each text at most, the prompt included, at least one more than it has;
    `width`: positions of what is returned, at which texts end too (default: prompts and new tokens
    together).

    **Returns:** `[row, (sample,) position]`. The log-probabilities are the network's at this
    temperature: those that a trainer computes from the same weights. Where `top_k`, `top_p` or
    `greedy` are given, tokens were drawn from fewer tokens than these are about.

    Raises `SpecificationError` if the texts do not fit into the network's context.
    """
    width = prompts.tokens.shape[-1] + new_tokens if width is None else width
    limit = jnp.full(prompts.length.shape, width) if limit is None else jnp.minimum(limit, width)
    if width > network.context:
        raise SpecificationError(
            f"prompts of {prompts.tokens.shape[-1]} tokens and {new_tokens} new ones do not fit "
            f"into a context of {network.context}: take fewer new tokens, or shorter prompts"
        )
    rows = prompts.tokens.shape[0]
    if samples is not None:
        prompts, limit = jax.tree.map(lambda x: jnp.repeat(x, samples, axis=0), (prompts, limit))
    written = _generate(
        network, prompts, limit, width, new_tokens, key, end, temperature, top_k, top_p, greedy
    )
    if samples is None:
        return written
    return jax.tree.map(lambda x: x.reshape(rows, samples, *x.shape[1:]), written)


def narrowed(
    log_probabilities: Float[Array, "*batch vocabulary"], top_k: int | None, top_p: float | None
) -> Float[Array, "*batch vocabulary"]:
    """Without the tokens that `top_k` and `top_p` leave out; not normalised again."""
    if top_k is not None:
        least = jax.lax.top_k(log_probabilities, top_k)[0][..., -1:]
        log_probabilities = jnp.where(log_probabilities >= least, log_probabilities, -jnp.inf)
    if top_p is not None:
        ordered = jnp.sort(log_probabilities, axis=-1, descending=True)
        probabilities = jnp.exp(ordered - jax.nn.logsumexp(ordered, axis=-1, keepdims=True))
        # A token stays if those before it do not hold `top_p` yet; so the likeliest always stays.
        kept = jnp.cumsum(probabilities, axis=-1) - probabilities < top_p
        least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        log_probabilities = jnp.where(log_probabilities >= least, log_probabilities, -jnp.inf)
    return log_probabilities


def _generate(
    network, prompts, limit, width, new_tokens, key, end, temperature, top_k, top_p, greedy
):
    rows, prompt_width = prompts.tokens.shape
    reader = reader_of(network)
    length = jnp.asarray(prompts.length)
    cache, logits = reader.read(jnp.asarray(prompts.tokens), length, width)
    last = length - 1
    row = jnp.arange(rows)
    ends = jnp.asarray(end, jnp.int32).reshape(1, -1)

    def one(carry):
        step, cache, logits, tokens, chosen, stop, done = carry
        place = prompts.length + step
        log_probabilities = next_log_probabilities(logits, temperature)
        if greedy:
            token = jnp.argmax(log_probabilities, axis=-1)
        else:
            drawn_from = narrowed(log_probabilities, top_k, top_p)
            token = jax.random.categorical(jax.random.fold_in(key, step), drawn_from, axis=-1)
        token = token.astype(tokens.dtype)
        # Rows that have ended write beyond the end, where it is dropped.
        written = jnp.where(done, width, place)
        tokens = tokens.at[row, written].set(token, mode="drop")
        chosen = chosen.at[row, written].set(log_probabilities[row, token], mode="drop")
        stop = jnp.where(done, stop, place + 1)
        done = done | jnp.any(token[:, None] == ends, axis=-1) | (place + 1 >= limit)
        cache, logits = reader.read_one(cache, token, jnp.minimum(place, width - 1))
        return step + 1, cache, logits, tokens, chosen, stop, done

    def unfinished(carry):
        return (carry[0] < new_tokens) & ~jnp.all(carry[-1])

    tokens = jnp.pad(jnp.asarray(prompts.tokens), ((0, 0), (0, width - prompt_width)))
    tokens = jnp.where(position_mask(0 * last, last + 1, width), tokens, 0)
    carry = (
        jnp.zeros((), jnp.int32),
        cache,
        logits,
        tokens,
        jnp.zeros((rows, width), jnp.float32),
        last + 1,
        jnp.zeros(rows, bool),
    )
    carry = jax.lax.while_loop(unfinished, one, carry)
    _, _, _, tokens, chosen, stop, _ = carry
    return Completions(tokens, position_mask(last + 1, stop, width), None, chosen)


def reader_of(network: AbstractTokenNetwork) -> "AbstractIncremental | _Rereading":
    """What reads a text token by token: the network, or one that reads it anew each time."""
    return network if isinstance(network, AbstractIncremental) else _Rereading(network)


class _Rereading:
    """Reads everything again for each token: for networks that cannot continue."""

    def __init__(self, network: AbstractTokenNetwork):
        self.network = network

    def read(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"], capacity: int
    ) -> tuple[Any, Array]:
        room = capacity - tokens.shape[-1]
        logits = self.network.logits(tokens)[jnp.arange(tokens.shape[0]), length - 1]
        return jnp.pad(tokens, ((0, 0), (0, room))), logits

    def read_one(self, cache: Any, token: Array, position: Array) -> tuple[Any, Array]:
        row = jnp.arange(cache.shape[0])
        cache = cache.at[row, position].set(token)
        return cache, self.network.logits(cache)[row, position]
