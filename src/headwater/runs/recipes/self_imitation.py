"""A model that learns from its own constrained texts, of which a critic keeps the good ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Completions
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractTokenNetwork,
    Prompts,
    TokenProblem,
)
from headwater.decoding.constrained import Constrained, Constraint
from headwater.ops.language.generation import Restrictions, generate
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay


class SelfImitation(NamedTuple):
    """What self-imitation left.

    **Arguments:** `states`: of the method after each round, along a first axis of all arrays;
    `data`: what the last one was learned from; rows that were not kept have no response; `kept`:
    share of the texts of each round that were.
    """

    states: Any
    data: Completions
    kept: Float[Array, " round"]


def self_imitation(
    method: AbstractMethod,
    problem: TokenProblem,
    prompts: Prompts,
    critic: AbstractCompletionReward,
    *,
    constraints: Sequence[Constraint] = (),
    rounds: int = 2,
    samples: int = 8,
    new_tokens: int,
    updates: int,
    rows: int = 64,
    threshold: float = 0.0,
    distinct: bool = True,
    restrictions: Restrictions = Restrictions(),  # noqa: B008 (it cannot change)
    key: PRNGKeyArray,
) -> SelfImitation:
    """I2D2 (Bhagavatula et al., 2023, arXiv:2212.09246), as a pure function.

    In each round the last network writes texts that keep the constraints, of which those stay that
    the critic rates above a threshold; from them `method` goes on learning.

    **Arguments:** `method`, `problem`: what learns (`SFT`), and the first network; `prompts`: of
    all rounds; `critic`: a learned classifier, for example; `constraints`: see `Constrained`;
    `samples`: texts for each prompt; `new_tokens`: in a text at most; `updates`: of a round, each
    with `rows` of what was kept, drawn uniformly; `threshold`: texts are kept above it; `distinct`:
    of equal texts one is kept, so that what is likely already does not crowd out the rest;
    `restrictions`: on what tokens are drawn from.

    Where nothing is kept, nothing is learned in that round. Raises `SpecificationError` if there is
    no round, or no text.
    """
    if min(rounds, samples, new_tokens, rows) < 1:
        raise SpecificationError(
            f"rounds = {rounds}, samples = {samples}, new_tokens = {new_tokens} and rows = {rows}: "
            "take at least 1 of each"
        )
    arrays, static = eqx.partition(problem.network, eqx.is_array)

    def one(arrays, key):
        write_key, begin_key, learn_key = jax.random.split(key, 3)
        network = eqx.combine(arrays, static)
        writer: AbstractTokenNetwork = network
        if constraints:
            writer = Constrained(network, constraints, end=problem.end)
        written = generate(
            writer,
            prompts,
            new_tokens,
            key=write_key,
            end=problem.end,
            samples=samples,
            restrictions=restrictions,
        )
        flat = lambda x: x.reshape(-1, x.shape[-1])
        texts = Completions(flat(written.tokens), flat(written.response))
        kept = critic(texts) > threshold
        if distinct:
            kept = kept & first_of_equals(texts)
        response = texts.response & jnp.broadcast_to(kept[:, None], texts.response.shape)
        data = Completions(texts.tokens, response)
        # Rows that were not kept are not drawn; where none was, they have nothing to teach.
        weights = jnp.where(jnp.any(kept), kept, jnp.ones_like(kept)).astype(jnp.float32)
        now = TokenProblem(network, problem.end)
        state = method.init(now, key=begin_key)
        if updates:
            source = CompletionReplay(data, rows, weights)
            state = learn(method, now, source, updates, key=learn_key).state
        after = eqx.filter(Agent(method, state).network(), eqx.is_array)
        return after, (state, data, jnp.mean(kept))

    _, (states, data, shares) = jax.lax.scan(one, arrays, jax.random.split(key, rounds))
    return SelfImitation(states, jax.tree.map(lambda x: x[-1], data), shares)


def first_of_equals(texts: Completions) -> Bool[Array, " row"]:
    """Whether no row before says the same, of prompts and responses together."""
    tokens, response = jnp.asarray(texts.tokens), jnp.asarray(texts.response)
    place = jnp.arange(tokens.shape[-1])
    last = jnp.max(jnp.where(response, place[None], _NOWHERE), axis=-1, keepdims=True)
    told = jnp.where(place[None] <= last, tokens, _NOWHERE)
    # Equal rows have equal sums, and stand side by side once these are sorted, in their order.
    # Other rows of the same sum can only part them, and then one text is told twice.
    powers = jnp.cumprod(jnp.full(told.shape[-1], _FACTOR, jnp.uint32))
    sums = jnp.sum((told.astype(jnp.uint32) + 2) * powers[None], axis=-1)
    order = jnp.argsort(sums, stable=True)
    ordered = told[order]
    new = jnp.any(ordered[1:] != ordered[:-1], axis=-1)
    return jnp.zeros(told.shape[0], bool).at[order].set(jnp.concatenate([jnp.ones(1, bool), new]))


_FACTOR = 2_654_435_761
"""Odd, and spread over 32 bits: powers of it tell places apart."""
_NOWHERE = -1
