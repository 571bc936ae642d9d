"""Writing text: one token after the other, compiled whole."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import (
    AbstractIncremental,
    AbstractTokenNetwork,
    Prompts,
    position_mask,
)
from headwater.ops.language.tokens import next_log_probabilities


class Restrictions(NamedTuple):
    """Which tokens a text may go on with, in the order in which they are applied.

    **Arguments:** `repetition_penalty`: logits of tokens that the text has already, its prompt
    included, are divided by it where they are positive and multiplied where they are negative;
    `top_k`: the likeliest so many; `top_p`: the likeliest ones that hold this probability; `min_p`:
    those with at least this share of the probability of the likeliest one.
    """

    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def check(self, vocabulary: int) -> None:
        """Raises `SpecificationError`, naming it, for a number that makes no sense."""
        if self.top_k is not None and not 1 <= self.top_k <= vocabulary:
            raise SpecificationError(f"top-k = {self.top_k} must be from 1 to {vocabulary}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise SpecificationError(f"top-p = {self.top_p} is a probability above 0 and at most 1")
        if self.min_p is not None and not 0.0 <= self.min_p <= 1.0:
            raise SpecificationError(f"min-p = {self.min_p} is a share from 0 to 1")
        penalty = self.repetition_penalty
        if penalty is not None and not 0.0 < penalty < math.inf:
            raise SpecificationError(
                f"repetition penalty = {penalty} must be positive, and finite: 1 changes nothing"
            )


def generate(
    network: AbstractTokenNetwork,
    prompts: Prompts,
    new_tokens: int,
    *,
    key: PRNGKeyArray,
    end: int | tuple[int, ...] = -1,
    samples: int | None = None,
    temperature: float | Float[Array, ""] = 1.0,
    restrictions: Restrictions = Restrictions(),  # noqa: B008 (it cannot change)
    greedy: bool = False,
    limit: Int[Array, " row"] | None = None,
    width: int | None = None,
) -> Completions:
    """Responses to prompts, with the log-probability of every token when it was drawn.

    **Arguments:** `prompts`: a batch `[row]`; a forced beginning of the response belongs to the
    prompt; `new_tokens`: at most; `end`: the token that ends a response, or all that do (-1: none
    does); `samples`: how many for each prompt (default: one, without an axis for it);
    `temperature`: what logits are divided by; `restrictions`: on what is drawn from; `greedy`: take
    the likeliest token; `limit`: tokens in each text at most, the prompt included, at least one
    more than it has; `width`: positions of what is returned, at which texts end too (default:
    prompts and new tokens together).

    **Returns:** `[row, (sample,) position]`. The log-probabilities are the network's at this
    temperature: those that a trainer computes from the same weights. With `restrictions` or
    `greedy`, tokens were drawn from fewer than these are about, or from other probabilities.

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
        network, prompts, limit, width, new_tokens, key, end, temperature, restrictions, greedy
    )
    if samples is None:
        return written
    return jax.tree.map(lambda x: x.reshape(rows, samples, *x.shape[1:]), written)


def narrowed(
    log_probabilities: Float[Array, "*batch vocabulary"],
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Array, "*batch vocabulary"]:
    """Without the tokens that these leave out (see `Restrictions`); not normalised again."""
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
    if min_p is not None:
        likeliest = jnp.max(log_probabilities, axis=-1, keepdims=True)
        enough = log_probabilities >= likeliest + jnp.log(min_p)
        log_probabilities = jnp.where(enough, log_probabilities, -jnp.inf)
    return log_probabilities


def penalised(
    logits: Float[Array, "*batch vocabulary"],
    present: Bool[Array, "*batch vocabulary"],
    penalty: float,
) -> Float[Array, "*batch vocabulary"]:
    """Logits that are lower where a token is `present`, if the penalty is above one."""
    lower = jnp.where(logits < 0.0, logits * penalty, logits / penalty)
    return jnp.where(present, lower, logits)


def _generate(
    network, prompts, limit, width, new_tokens, key, end, temperature, restrictions, greedy
):
    top_k, top_p, min_p, penalty = restrictions
    rows, prompt_width = prompts.tokens.shape
    reader = reader_of(network)
    length = jnp.asarray(prompts.length)
    cache, logits = reader.read(jnp.asarray(prompts.tokens), length, width)
    last = length - 1
    row = jnp.arange(rows)
    ends = jnp.asarray(end, jnp.int32).reshape(1, -1)

    def one(carry):
        step, cache, logits, tokens, chosen, present, stop, done = carry
        place = prompts.length + step
        drawn_from = log_probabilities = next_log_probabilities(logits, temperature)
        if penalty is not None:
            lower = penalised(logits.astype(jnp.float32), present, penalty)
            drawn_from = next_log_probabilities(lower, temperature)
        if greedy:
            token = jnp.argmax(drawn_from, axis=-1)
        else:
            drawn_from = narrowed(drawn_from, top_k, top_p, min_p)
            token = jax.random.categorical(jax.random.fold_in(key, step), drawn_from, axis=-1)
        token = token.astype(tokens.dtype)
        # Rows that have ended write beyond the end, where it is dropped.
        written = jnp.where(done, width, place)
        tokens = tokens.at[row, written].set(token, mode="drop")
        chosen = chosen.at[row, written].set(log_probabilities[row, token], mode="drop")
        if penalty is not None:
            present = present.at[row, token].set(True)
        stop = jnp.where(done, stop, place + 1)
        done = done | jnp.any(token[:, None] == ends, axis=-1) | (place + 1 >= limit)
        cache, logits = reader.read_one(cache, token, jnp.minimum(place, width - 1))
        return step + 1, cache, logits, tokens, chosen, present, stop, done

    def unfinished(carry):
        return (carry[0] < new_tokens) & ~jnp.all(carry[-1])

    tokens = jnp.pad(jnp.asarray(prompts.tokens), ((0, 0), (0, width - prompt_width)))
    tokens = jnp.where(position_mask(0 * last, last + 1, width), tokens, 0)
    present = None
    if penalty is not None:
        # Nothing is counted of the padding.
        given = jnp.where(position_mask(0 * last, last + 1, width), tokens, logits.shape[-1])
        present = jnp.zeros(logits.shape, bool).at[row[:, None], given].set(True, mode="drop")
    carry = (
        jnp.zeros((), jnp.int32),
        cache,
        logits,
        tokens,
        jnp.zeros((rows, width), jnp.float32),
        present,
        last + 1,
        jnp.zeros(rows, bool),
    )
    carry = jax.lax.while_loop(unfinished, one, carry)
    _, _, _, tokens, chosen, _, stop, _ = carry
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
