"""Texts as tokens, fitted into a context."""

import dataclasses
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError
from headwater.core.fields import check_choice
from headwater.core.records import Completions
from headwater.texts.fields import Row
from headwater.texts.segments import Parts
from headwater.texts.tokenizers import AbstractTokenizer, begins_with_marks

TooLong = Literal["refuse", "drop", "cut_prompt", "cut_response"]
"""What happens to a row that does not fit into the context: an error; it is left out; the beginning
of its prompt goes; the end of its response goes, and with it the token that ends it."""

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Read(Generic[Record]):
    """What came of a file.

    **Arguments:** `data`; `rows`: in the file; `dropped`, `cut`: rows that were too long; `tokens`:
    that are not padding; `endless`: conversations that the chat template ends with no token that
    ends a text.
    """

    data: Record
    rows: int
    dropped: int
    cut: int
    tokens: int
    endless: int = 0

    @property
    def tokens_per_record(self) -> float:
        """Of each record of `data`, on average: one row of plain text is many windows."""
        return self.tokens / jax.tree.leaves(self.data)[0].shape[0]

    @property
    def notes(self) -> list[str]:
        """What the user should know of the rows before learning from them."""
        found = []
        if self.dropped or self.cut:
            found.append(
                f"of {self.rows:,} rows, {self.dropped:,} were too long and left out, {self.cut:,} "
                "were cut"
            )
        if self.endless:
            found.append(
                f"the model's chat template ends {self.endless:,} conversations with no token that "
                "ends a text, so that it is not learned to stop there: if the template writes a "
                "token for that, name it in eos_token_id of the model's generation_config.json"
            )
        return found


class Text(NamedTuple):
    """Tokens, and which of them are response.

    **Arguments:** `marks`: tokens that every text begins with; `ended`: whether it has its end.
    """

    tokens: list[int]
    response: list[bool]
    marks: int
    ended: bool = True

    @property
    def prompt(self) -> int:
        """Tokens before the first one of a response."""
        return self.response.index(True) if True in self.response else len(self.tokens)


def tokenised(row: Row, parts: Parts, tokenizer: AbstractTokenizer) -> Text:
    """The tokens of a row, with those that begin and end a text. Raises `DataError`.

    It is cut into tokens as a whole, since how a piece is cut depends on what stands beside it. The
    prompt is what the whole and the prompt alone begin with, as in TRL.
    """
    tokens, places = tokenizer.encode_with_places(parts.text)
    asked = parts.prompt == parts.text
    ended = asked or _has_ended(tokens, tokenizer)
    if not (ended or parts.finished):
        tokens, places = tokenizer.ended(parts.text, tokens, places)
    marks = len(tokenizer.begin) if begins_with_marks(tokenizer, tokens) else 0
    if not (marks or parts.finished):
        marks = len(tokenizer.begin)
        tokens, places = [*tokenizer.begin, *tokens], [(0, 0)] * marks + places
    if not tokens:
        raise row.error("'prompt' is empty, and the tokenizer has no token to begin with")
    if parts.answers is None:
        same = len(tokens) if asked else _same(parts, tokens, tokenizer)
        response = [i >= same for i in range(len(tokens))]
    else:
        # What ends the text belongs to an answer that reaches so far.
        answers = [(begin, end + (end == len(parts.text))) for begin, end in parts.answers]
        response = [any(a < end and begin < b for a, b in answers) for begin, end in places]
    # What stands first follows nothing, so that nobody chose it.
    response[0] = False
    if not asked and True not in response:
        raise row.error("the tokenizer makes no token of what is to be learned: remove the row")
    return Text(tokens, response, marks, ended or not parts.finished)


def _same(parts: Parts, tokens: list[int], tokenizer: AbstractTokenizer) -> int:
    """How many tokens the whole and the prompt alone begin with."""
    alone = tokenizer.encode(parts.prompt)
    if not (parts.finished or begins_with_marks(tokenizer, alone)):
        alone = [*tokenizer.begin, *alone]
    pairs = enumerate(zip(alone, tokens))
    return next((i for i, (a, b) in pairs if a != b), min(len(alone), len(tokens)))


def _has_ended(tokens: list[int], tokenizer: AbstractTokenizer) -> bool:
    """Whether a text brings its end, with a line break after it perhaps.

    Without one a model would never learn to stop, so that it is added.
    """
    if tokenizer.end < 0:
        return True
    ends = tokenizer.ends
    last = max((i for i, t in enumerate(tokens) if t in ends), default=-1)
    return last >= 0 and not tokenizer.decode(tokens[last + 1 :]).strip()


class Tally:
    """Sees to rows that are too long, and counts them.

    **Arguments:** `context`: tokens in a row at most; `too_long`; `kept_free`: behind them.
    """

    def __init__(self, context: int, too_long: TooLong, kept_free: int = 0):
        check_choice(too_long, TooLong, "too_long")
        self.context, self.too_long, self.kept_free = context, too_long, kept_free
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
        if self.kept_free:
            return (
                f"a prompt of {prompt} tokens and {self.kept_free} new ones do not fit into a "
                f"context of {self.context + self.kept_free}"
            )
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
            raise DataError(f"{path}: no row fits into {self.context} tokens")
        longest = max(len(text.tokens) for text in texts)
        if mixed:
            prompt = max(text.prompt for text in texts)
            longest = prompt + max(len(text.tokens) - text.prompt for text in texts)
        return min(1 << (longest - 1).bit_length(), self.context)

    def report(self, data: Record, rows: int, texts: list[Text]) -> Read[Record]:
        """What came of a file of so many rows."""
        tokens = sum(len(text.tokens) for text in texts)
        endless = sum(not text.ended for text in texts)
        return Read(data, rows, self.dropped, self.cut, tokens, endless)


def with_one_prompt(pair: list[Text]) -> list[Text]:
    """Two responses to a prompt, of which one may begin before the other, both from there on."""
    start = min(text.prompt for text in pair)
    return [text._replace(response=[i >= start for i in range(len(text.tokens))]) for text in pair]


def padded(texts: list[Text], width: int, tokenizer: AbstractTokenizer) -> Completions:
    """Texts as rows of `width` tokens, `[text, width]`, filled up behind with padding."""
    tokens = np.full((len(texts), width), tokenizer.padding, np.int32)
    response = np.zeros((len(texts), width), bool)
    for i, text in enumerate(texts):
        tokens[i, : len(text.tokens)] = text.tokens
        response[i, : len(text.tokens)] = text.response
    return Completions(jnp.asarray(tokens), jnp.asarray(response))
