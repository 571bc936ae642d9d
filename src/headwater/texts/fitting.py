"""Texts as tokens, fitted into a context."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError
from headwater.core.fields import check_choice
from headwater.core.records import Completions
from headwater.texts.fields import Row
from headwater.texts.segments import Segment
from headwater.texts.tokenizers import AbstractTokenizer, begins_with_marks

TooLong = Literal["refuse", "drop", "cut_prompt", "cut_response"]
"""What happens to a row that does not fit into the context: an error; it is left out; the beginning
of its prompt goes; the end of its response goes, and with it the token that ends it."""

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Read(Generic[Record]):
    """What came of a file.

    **Arguments:** `data`; `rows`: in the file; `dropped`, `cut`: rows that were too long; `tokens`:
    that are not padding.
    """

    data: Record
    rows: int
    dropped: int
    cut: int
    tokens: int

    @property
    def tokens_per_record(self) -> float:
        """Of each record of `data`, on average: one row of plain text is many windows."""
        return self.tokens / jax.tree.leaves(self.data)[0].shape[0]

    def sentence(self) -> str:
        """For the user, who asked for rows to be dropped or cut."""
        return (
            f"{self.rows:,} rows, {self.tokens:,} tokens; {self.dropped:,} rows were too long and "
            f"left out, {self.cut:,} were cut"
        )


class Text(NamedTuple):
    """Tokens, and which of them are response."""

    tokens: list[int]
    response: list[bool]
    marks: int

    @property
    def prompt(self) -> int:
        """Tokens before the first one of a response."""
        return self.response.index(True) if True in self.response else len(self.tokens)


def tokenised(row: Row, segments: Sequence[Segment], tokenizer: AbstractTokenizer) -> Text:
    """The tokens of these pieces, with those that begin and end a text. Raises `DataError`."""
    # Cut as a whole, since how a piece is cut depends on what stands before it. A token that
    # reaches over a seam belongs to what comes after.
    tokens, ends = tokenizer.encode_with_ends("".join(text for text, _ in segments))
    bounds = list(itertools.accumulate(len(text) for text, _ in segments))
    response = [segments[bisect.bisect_left(bounds, end)][1] for end in ends]
    if begins_with_marks(tokenizer, tokens):
        response[: len(tokenizer.begin)] = [False] * len(tokenizer.begin)
    else:
        tokens = [*tokenizer.begin, *tokens]
        response = [False] * len(tokenizer.begin) + response
    if segments[-1][1] and not _has_ended(tokens, response, tokenizer):
        tokens, response = [*tokens, tokenizer.end], [*response, True]
    prompted = not segments[0][1]
    if not tokens or (prompted and response[0]):
        raise row.error("'prompt' is empty, and the tokenizer has no token to begin with")
    # What stands first follows nothing, so that nobody chose it.
    response[0] = False
    return Text(tokens, response, len(tokenizer.begin))


def _has_ended(tokens: list[int], response: list[bool], tokenizer: AbstractTokenizer) -> bool:
    """Whether the response brings its end, as chat templates write it, with a line break after it.

    Without one a model would never learn to stop, so that it is added where a template writes none.
    """
    if tokenizer.end < 0:
        return True
    ends = tokenizer.ends
    last = max((i for i, t in enumerate(tokens) if t in ends and response[i]), default=-1)
    return last >= 0 and not tokenizer.decode(tokens[last + 1 :]).strip()


class Tally:
    """Sees to rows that are too long, and counts them."""

    def __init__(self, context: int, too_long: TooLong):
        check_choice(too_long, TooLong, "too_long")
        self.context, self.too_long = context, too_long
        self.dropped = self.cut = 0

    def fitted(self, row: Row, texts: list[Text]) -> list[Text] | None:
        """The texts of a row as they fit, or nothing if the row is dropped."""
        longest = max(texts, key=lambda text: len(text.tokens))
        if len(longest.tokens) <= self.context:
            return texts
        if self.too_long == "drop":
            self.dropped += 1
            return None
        if self.too_long == "refuse":
            raise row.error(self._reason(longest) + ": shorten it, or say what to do with too_long")
        self.cut += 1
        over = len(longest.tokens) - self.context
        return [self._shortened(row, text, over) for text in texts]

    def _reason(self, text: Text) -> str:
        prompt, total = text.prompt, len(text.tokens)
        if prompt >= self.context:
            return f"a prompt of {prompt} tokens does not fit into a context of {self.context}"
        return (
            f"a prompt of {prompt} tokens and a response of {total - prompt} do not fit into a "
            f"context of {self.context}"
        )

    def _shortened(self, row: Row, text: Text, over: int) -> Text:
        """`over`: of the longest text of the row, since the prompt stays the same for all."""
        if self.too_long == "cut_response":
            if text.prompt >= self.context:
                raise row.error(self._reason(text) + ", so that nothing is left of the response")
            return Text(text.tokens[: self.context], text.response[: self.context], text.marks)
        if text.prompt - over < max(text.marks, 1):
            raise row.error(self._reason(text) + ", even without the prompt: cut or drop it")
        kept = text.marks + over
        return Text(
            text.tokens[: text.marks] + text.tokens[kept:],
            text.response[: text.marks] + text.response[kept:],
            text.marks,
        )

    def bucket(self, path: Path, texts: list[Text], *, mixed: bool = False) -> int:
        """The least power of two that holds all, or the context.

        `mixed`: every response may be put behind every prompt.
        """
        if not texts:
            raise DataError(f"{path}: no row fits into a context of {self.context}")
        longest = max(len(text.tokens) for text in texts)
        if mixed:
            prompt = max(text.prompt for text in texts)
            longest = prompt + max(len(text.tokens) - text.prompt for text in texts)
        return min(1 << (longest - 1).bit_length(), self.context)

    def report(self, data: Record, rows: int, texts: list[Text]) -> Read[Record]:
        """What came of a file of so many rows."""
        tokens = sum(len(text.tokens) for text in texts)
        return Read(data, rows, self.dropped, self.cut, tokens)


def padded(texts: list[Text], width: int, tokenizer: AbstractTokenizer) -> Completions:
    """Texts as rows of `width` tokens, `[text, width]`, filled up behind with padding."""
    tokens = np.full((len(texts), width), tokenizer.padding, np.int32)
    response = np.zeros((len(texts), width), bool)
    for i, text in enumerate(texts):
        tokens[i, : len(text.tokens)] = text.tokens
        response[i, : len(text.tokens)] = text.response
    return Completions(jnp.asarray(tokens), jnp.asarray(response))
