"""Completions of prompts: rewarded, labelled, compared, or compared beside one's own."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from headwater.core.records import (
    ComparisonsAndCompletions,
    CompletionComparisons,
    Completions,
    LabelledCompletions,
)
from headwater.core.tokens import TokenProblem, position_mask
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.token_table import PrefixTable
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows

_TOKENS, _CONTEXT, _END = 4, 4, 3


@kinds_of(TokenProblem, Completions)
def _kinds() -> list[Kind]:
    experts = _decoder_problem(experts=3, active_experts=1)
    return [
        Kind("answers", _token_problem(), _answers, False, _HARD),
        Kind("answers of a decoder", _decoder_problem(), _answers, False, _HARD, True),
        # Copies, as are made of a decoder without experts, hardly differ within a few updates.
        Kind(
            "answers of a decoder with experts",
            experts,
            _answers,
            False,
            _HARD,
            field="num_experts",
        ),
        # Prompts of two demonstrations, each a token, and a query, in bytes.
        Kind(
            "answers to demonstrations",
            TokenProblem(
                Decoder(Architecture(64, 8, width=4, layers=2, heads=1), key=jax.random.key(7)),
                end=_END,
            ),
            _answers_to_demonstrations,
            False,
            _HARD,
            field="demonstration_tokens",
        ),
    ]


@kinds_of(TokenProblem, LabelledCompletions)
def _kinds_of_labelled_answers() -> list[Kind]:
    # Not flat: which response follows which prompt is part of the update.
    problem, decoder = _token_problem(), _decoder_problem()
    name = "labelled answers"
    return [
        Kind(name, problem, _labelled_completions, False, _HARD_LABELS),
        Kind(f"{name} of a decoder", decoder, _labelled_completions, False, _HARD_LABELS, True),
    ]


@kinds_of(TokenProblem, CompletionComparisons)
def _kinds_of_compared_answers() -> list[Kind]:
    hard = {
        "repeated rows": repeated_rows,
        "the same twice": lambda d: replace(d, rejected=d.chosen),
    }
    return [Kind("compared answers", _token_problem(), _compared_completions, True, hard)]


@kinds_of(TokenProblem, ComparisonsAndCompletions)
def _kinds_of_compared_and_own_answers() -> list[Kind]:
    hard = {
        "the same twice": lambda d: eqx.tree_at(
            lambda x: x.comparisons.rejected, d, d.comparisons.chosen
        ),
        **{
            name: lambda d, change=change: replace(d, completions=change(d.completions))
            for name, change in _HARD.items()
        },
    }
    return [Kind("compared and own answers", _token_problem(), _compared_and_own, False, hard)]


def _token_problem() -> TokenProblem:
    network = PrefixTable(_TOKENS, _CONTEXT, key=jax.random.key(7))
    return TokenProblem(network, end=_END)


def _decoder_problem(**experts: Any) -> TokenProblem:
    architecture = Architecture(_TOKENS, _CONTEXT, width=4, layers=4, heads=1, hidden=8, **experts)
    return TokenProblem(Decoder(architecture, key=jax.random.key(7)), end=_END)


def _completions(key, shape: tuple[int, ...], prompt_tokens=None) -> Completions:
    """Responses of one to three tokens to prompts of one token."""
    token_key, length_key, reward_key, chance_key, part_key = jax.random.split(key, 5)
    tokens = jax.random.randint(token_key, (*shape, _CONTEXT), 0, _TOKENS, jnp.int32)
    if prompt_tokens is not None:
        tokens = tokens.at[..., 0].set(prompt_tokens)
    length = jax.random.randint(length_key, shape, 1, _CONTEXT, jnp.int32)
    response = position_mask(jnp.ones_like(length), 1 + length, _CONTEXT)
    chance = -jax.random.exponential(chance_key, (*shape, _CONTEXT))
    parts = jax.random.normal(part_key, (*shape, _CONTEXT))
    return Completions(
        tokens,
        response,
        jax.random.normal(reward_key, shape),
        jnp.where(response, chance, 0.0),
        token_reward=jnp.where(response, parts, 0.0),
    )


def _answers_to_demonstrations(key) -> Completions:
    """Four responses to each of four prompts `a\\nb\\nc>`."""
    data = _answers(key)
    prompt = jax.random.randint(key, (4, 1, 6), 0, 4, jnp.int32)
    prompt = prompt.at[..., 1].set(10).at[..., 3].set(10).at[..., 5].set(62)
    tokens = [jnp.broadcast_to(prompt, (4, 4, 6)), data.tokens[..., 1:3]]
    before = jnp.zeros((4, 4, 6), bool)

    def placed(x):
        return jnp.concatenate([before.astype(x.dtype), x[..., 1:3]], axis=-1)

    return Completions(
        jnp.concatenate(tokens, axis=-1),
        placed(data.response),
        data.reward,
        placed(jnp.asarray(data.log_probability)),
        token_reward=placed(jnp.asarray(data.token_reward)),
    )


def _answers(key) -> Completions:
    """Four responses to each of four prompts."""
    prompts = jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32)[:, None], (4, 4))
    return _completions(key, (4, 4), prompts)


def _compared_completions(key) -> CompletionComparisons:
    first, second = jax.random.split(key)
    chosen = _completions(first, (ROWS,))
    rejected = _completions(second, (ROWS,), chosen.tokens[..., 0])
    return CompletionComparisons(chosen, rejected, jnp.arange(ROWS) % 2 == 0)


def _labelled_completions(key) -> LabelledCompletions:
    return LabelledCompletions(_completions(key, (ROWS,)), jnp.arange(ROWS) % 3 > 0)


def _compared_and_own(key) -> ComparisonsAndCompletions:
    first, second = jax.random.split(key)
    return ComparisonsAndCompletions(_compared_completions(first), _answers(second))


_HARD_LABELS = {
    "repeated rows": repeated_rows,
    "all desirable": lambda d: replace(d, desirable=jnp.ones_like(d.desirable)),
    "all undesirable": lambda d: replace(d, desirable=jnp.zeros_like(d.desirable)),
}

_HARD = {
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), token_reward=jnp.zeros_like(d.token_reward)
    ),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward, token_reward=1e6 * d.token_reward),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1, :1], x.shape), d),
    "empty responses": lambda d: replace(
        d,
        response=jnp.zeros_like(d.response),
        log_probability=jnp.zeros_like(d.log_probability),
        token_reward=jnp.zeros_like(d.token_reward),
    ),
}
