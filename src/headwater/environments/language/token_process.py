"""Token decision processes small enough to list every response."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, AbstractPreference, Prompts

_MOST_RESPONSES = 200_000


class EveryResponse(eqx.Module):
    """Every response of a fixed length to one prompt token or several, listed.

    **Arguments:** `data`: `[prompt, response, position]`; prompts are one token each, responses
    are in the order of counting.
    """

    data: Completions
    vocabulary: int = eqx.field(static=True)
    new_tokens: int = eqx.field(static=True)

    @property
    def prompts(self) -> Prompts:
        """The prompts, each one token."""
        tokens = self.data.tokens[:, 0, :1]
        return Prompts(tokens, jnp.ones(tokens.shape[0], jnp.int32))


def every_response(vocabulary: int, new_tokens: int, prompts: int = 1) -> EveryResponse:
    """Lists all `vocabulary ** new_tokens` responses to the prompts 0, 1, …

    Raises `SpecificationError` if they are too many, or if there are more prompts than tokens.
    """
    count = vocabulary**new_tokens
    if count * prompts > _MOST_RESPONSES:
        raise SpecificationError(
            f"{count} responses to each of {prompts} prompts are too many to list: take fewer "
            "tokens, or shorter responses"
        )
    if prompts > vocabulary:
        raise SpecificationError(
            f"a prompt is one token, so that there can be {vocabulary} prompts, not {prompts}"
        )
    responses = np.asarray(list(itertools.product(range(vocabulary), repeat=new_tokens)), np.int32)
    tokens = np.zeros((prompts, count, 1 + new_tokens), np.int32)
    tokens[:, :, 0] = np.arange(prompts)[:, None]
    tokens[:, :, 1:] = responses[None]
    response = np.broadcast_to(np.arange(1 + new_tokens) > 0, tokens.shape)
    data = Completions(jnp.asarray(tokens), jnp.asarray(response))
    return EveryResponse(data, vocabulary, new_tokens)


class TableReward(AbstractCompletionReward):
    """The reward of every response of a fixed length to one-token prompts, in a table.

    **Arguments:** `values`: responses in the order of counting; `vocabulary`.
    """

    values: Float[Array, "prompt response"]
    vocabulary: int = eqx.field(static=True)

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        return self.values[data.tokens[..., 0], response_number(data, self.vocabulary)]


class TablePreference(AbstractPreference):
    """How often each response is preferred to each other one, to one-token prompts, in a table.

    **Arguments:** `values`: responses in the order of counting, `[prompt, first, second]`;
    `vocabulary`.
    """

    values: Float[Array, "prompt response response"]
    vocabulary: int = eqx.field(static=True)

    def __call__(self, first: Completions, second: Completions) -> Float[Array, "*batch"]:
        rows = response_number(first, self.vocabulary), response_number(second, self.vocabulary)
        return self.values[first.tokens[..., 0], *rows]


def response_number(data: Completions, vocabulary: int) -> Int[Array, "*batch"]:
    """The place of each response in the order of counting."""
    index = jnp.zeros(data.tokens.shape[:-1], jnp.int32)
    for position in range(1, data.tokens.shape[-1]):
        index = index * vocabulary + data.tokens[..., position]
    return index
