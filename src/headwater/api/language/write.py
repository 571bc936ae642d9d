"""Let language models write."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, Prompts
from headwater.decoding.constrained import Constrained, Constraint
from headwater.ops.language.generation import Restrictions, generate
from headwater.runs.options import check_seed
from headwater.texts.models import LanguageModel
from headwater.texts.tokenizers import AbstractTokenizer, Message, begins_with_marks

_AT_ONCE = 64
"""Responses that are written side by side."""


_generate = eqx.filter_jit(generate)
"""Compiled once for all models of one architecture that are asked alike."""


def generate_texts(
    model: LanguageModel,
    prompts: Sequence[str | Sequence[Message]],
    *,
    new_tokens: int = 64,
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    greedy: bool = False,
    seed: int = 0,
    required: Sequence[str] = (),
    forbidden: Sequence[str] = (),
    once: Sequence[str] = (),
) -> list[list[dict[str, Any]]]:
    """Responses to texts: for each prompt its samples, with `text` and `log_probability`.

    **Arguments:** `prompts`: texts to go on with, or conversations to answer; the others as of
    `ops.language.generation.generate`, and of its `Restrictions`; `required`:
    what each text has to say, `"wing|feather"` for one of several; `forbidden`: what it must not
    say; `once`: of which it says one at most, and once. These are strings of characters, with a
    space before them or not, in the whole text, its prompt included. Raises `SpecificationError`
    if prompts and new tokens do not fit into the model's context, or for an empty constraint, and
    `DataError` for a conversation that the model's chat template refuses.
    """
    if not prompts:
        raise SpecificationError("there is no prompt to answer")
    check_seed(seed)
    rows = [_tokens(model.tokenizer, prompt) for prompt in prompts]
    empty = [i for i, row in enumerate(rows) if not row]
    if empty:
        raise SpecificationError(f"prompt {empty[0] + 1} is empty: give at least one character")
    longest = max(map(len, rows))
    if longest + new_tokens > model.decoder.context:
        raise SpecificationError(
            f"a prompt of {longest} tokens and {new_tokens} new ones do not fit into the model's "
            f"context of {model.decoder.context}: shorten one of them"
        )
    # A power of two, so that other prompts find the program compiled.
    width = min(1 << (longest - 1).bit_length(), model.decoder.context - new_tokens)
    tokens = np.full((len(rows), width), model.tokenizer.padding, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    given = Prompts(jnp.asarray(tokens), jnp.asarray([len(row) for row in rows], jnp.int32))
    restrictions = Restrictions(top_k, top_p, min_p, repetition_penalty)
    constraints = [
        *(_constraint(model, words, least=1) for words in required),
        *(_constraint(model, words, most=0) for words in forbidden),
        *(_constraint(model, words, most=1) for words in once),
    ]
    key = jax.random.key(seed)
    network: AbstractTokenNetwork = model.network
    if constraints:
        network = Constrained(network, constraints, end=model.tokenizer.ends)
    written = answers(
        model, given, new_tokens, samples, temperature, restrictions, greedy, key, network=network
    )
    marks, log_probabilities = np.asarray(written.response), np.asarray(written.log_probability)
    return [
        [
            {
                "text": model.tokenizer.decode_after(rows[i], written.tokens[i, j][marks[i, j]]),
                "log_probability": float(log_probabilities[i, j].sum()),
            }
            for j in range(samples)
        ]
        for i in range(len(rows))
    ]


def _tokens(tokenizer: AbstractTokenizer, prompt: str | Sequence[Message]) -> list[int]:
    if isinstance(prompt, str):
        text, finished = prompt, False
    else:
        # A template of the model's own writes what conversations begin with.
        finished = tokenizer.templated
        text = tokenizer.conversation(prompt, answer_follows=True)
    tokens = tokenizer.encode(text)
    if finished or begins_with_marks(tokenizer, tokens):
        return tokens
    return [*tokenizer.begin, *tokens]


def _constraint(
    model: LanguageModel, words: str, *, least: int = 0, most: int | None = None
) -> Constraint:
    """That one of these words comes so often, as tokens of its own or after a space."""
    phrases = []
    for word in words.split("|"):
        if not word.strip():
            raise SpecificationError(
                f"'{words}' has an empty word: give words to write or not to write, with | between "
                "those of which one is enough"
            )
        phrases += [model.tokenizer.encode(word), model.tokenizer.encode(f" {word}")]
    # What is written twice is one phrase; where spaces are tokens, the word alone is in both.
    kept = [p for i, p in enumerate(phrases) if p not in phrases[:i]]
    alone = [p for p in kept if not any(p is not q and _ends_with(p, q) for q in kept)]
    return Constraint(alone, least, most)


def _ends_with(phrase: Sequence[int], other: Sequence[int]) -> bool:
    return list(phrase[-len(other) :]) == list(other)


def answers(
    model: LanguageModel,
    prompts: Prompts,
    new_tokens: int,
    samples: int,
    temperature: float,
    restrictions: Restrictions,
    greedy: bool,
    key,
    *,
    network: AbstractTokenNetwork | None = None,
) -> Completions:
    """Responses to prompts `[row]`, some at a time: `[row, sample, position]`.

    The last rows are repeated to fill up, so that one program serves all. **Arguments:** `network`:
    what writes in place of the model's own. Raises `SpecificationError` for numbers that make no
    sense.
    """
    if samples < 1 or new_tokens < 1 or temperature <= 0.0:
        raise SpecificationError("samples, new tokens and temperature must be above zero")
    restrictions.check(model.decoder.vocabulary)
    count = prompts.length.shape[0]
    at_once = min(count, max(_AT_ONCE // samples, 1))
    parts = []
    for start in range(0, count, at_once):
        index = np.minimum(np.arange(start, start + at_once), count - 1)
        part = jax.tree.map(lambda x, index=index: x[index], prompts)
        written = _generate(
            model.network if network is None else network,
            part,
            new_tokens,
            key=jax.random.fold_in(key, start),
            end=model.tokenizer.ends,
            samples=samples,
            temperature=temperature,
            restrictions=restrictions,
            greedy=greedy,
        )
        parts.append(written)
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *parts)
