"""Texts to learn from, in the columns that TRL uses: JSON Lines, Parquet and plain text files."""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, nearest
from headwater.core.fields import check_choice
from headwater.core.records import CompletionComparisons, Completions, LabelledCompletions
from headwater.core.tokens import Prompts
from headwater.texts.rows import stored_rows
from headwater.texts.tokenizers import ROLES, AbstractTokenizer, begins_with_marks

TooLong = Literal["refuse", "drop", "cut_prompt", "cut_response"]
"""What happens to a row that does not fit into the context: an error; it is left out; the beginning
of its prompt goes; the end of its response goes, and with it the token that ends it."""

Columns = Mapping[str, str]
"""From `prompt`, `completion`, `chosen`, `rejected`, `text`, `messages`, `reward` or `label` to
the name of the column that holds it, where that is another one."""

_NOT_HONOURED = {"tools": "tools", "margin": "margins of preferences"}
"""Columns that TRL reads and that are not read here, and what they hold."""

_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
"""ShareGPT's names of roles."""

_COLUMNS = ("prompt", "completion", "chosen", "rejected", "text", "messages", "reward", "label")

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


def read_completions(
    path: str | Path,
    tokenizer: AbstractTokenizer,
    context: int,
    *,
    too_long: TooLong = "refuse",
    only_answers: bool = False,
    columns: Columns | None = None,
) -> Read[Completions]:
    """Texts, of which the responses are learned from.

    The rows of a table hold `prompt` and `completion`, or `messages`, or `text`; texts or
    conversations; and perhaps a `reward` (or `score`). A `.txt` file is one text, taken apart into
    windows of the context.

    **Arguments:** `context`: tokens in a row at most; `only_answers`: of `messages`, count what the
    assistant says as response, and not the whole; `columns`: see `Columns`.

    Raises `DataError`, naming file, row and column, for what cannot be used.
    """
    path = Path(path)
    if path.suffix.lower() in (".txt", ".text", ".md"):
        if only_answers:
            raise _no_conversations(path)
        return _windows(path, tokenizer, context)
    rows = list(_rows(path, columns))
    kinds = (("prompt", "completion"), ("messages",), ("text",))
    names = rows[0].fields
    kind = next((kind for kind in kinds if kind[-1] in names), None)
    if kind is None:
        raise rows[0].missing("completion", "completions need 'prompt' and 'completion', ")
    if only_answers and kind != ("messages",):
        raise _no_conversations(path)
    judged = "reward" in names
    texts, rewards, tally = [], [], _Tally(context, too_long)
    for row in rows:
        segments = _segments(row, kind, tokenizer, only_answers)
        reward = row.finite("reward") if judged else 0.0
        text = tally.fitted(row, [_tokenised(row, segments, tokenizer)])
        if text is not None:
            texts += text
            rewards.append(reward)
    data = _padded(texts, tally.bucket(path, texts), tokenizer)
    if judged:
        data = Completions(data.tokens, data.response, jnp.array(rewards, jnp.float32))
    return tally.report(data, len(rows), texts)


def read_comparisons(
    path: str | Path,
    tokenizer: AbstractTokenizer,
    context: int,
    *,
    too_long: TooLong = "refuse",
    columns: Columns | None = None,
) -> Read[CompletionComparisons]:
    """Pairs of responses, of which `chosen` was preferred to `rejected`.

    Without a column `prompt`, that is what both begin with: whole messages of conversations,
    characters of texts. **Arguments:** as of `read_completions`, which raises the same.
    """
    path = Path(path)
    rows = list(_rows(path, columns))
    for name in ("chosen", "rejected"):
        if name not in rows[0].fields:
            raise rows[0].missing(name, "comparisons need 'chosen' and 'rejected', ")
    chosen, rejected, tally = [], [], _Tally(context, too_long)
    for row in rows:
        prompt, *answers = _with_prompt(row)
        pair = [
            _tokenised(row, _prompted(row, prompt, answer, name, tokenizer), tokenizer)
            for name, answer in zip(("chosen", "rejected"), answers)
        ]
        pair = tally.fitted(row, pair)
        if pair is not None:
            chosen.append(pair[0])
            rejected.append(pair[1])
    width = tally.bucket(path, chosen + rejected)
    data = CompletionComparisons(
        _padded(chosen, width, tokenizer), _padded(rejected, width, tokenizer)
    )
    return tally.report(data, len(rows), chosen + rejected)


def read_labelled(
    path: str | Path,
    tokenizer: AbstractTokenizer,
    context: int,
    *,
    too_long: TooLong = "refuse",
    columns: Columns | None = None,
) -> Read[LabelledCompletions]:
    """Responses that are each labelled: `prompt`, `completion` and `label`, true if desirable.

    Comparisons, `chosen` and `rejected`, are taken apart into two rows, one of each label. There is
    room behind the longest prompt for the longest response, as far as the context goes.
    **Arguments:** as of `read_completions`, which raises the same.
    """
    path = Path(path)
    rows = list(_rows(path, columns))
    names = rows[0].fields
    paired = "label" not in names and "chosen" in names and "rejected" in names
    if not paired:
        for name in ("label", "completion", "prompt"):
            if name not in names:
                need = "labelled completions need 'prompt', 'completion' and 'label', "
                raise rows[0].missing(name, need)
    texts, labels, tally = [], [], _Tally(context, too_long)
    for row in rows:
        if paired:
            prompt, *answers = _with_prompt(row)
            answers = list(zip(("chosen", "rejected"), answers, (True, False)))
        else:
            prompt, label = row.given("prompt"), row.label()
            answers = [("completion", row.given("completion"), label)]
        found = [
            _tokenised(row, _prompted(row, prompt, answer, name, tokenizer), tokenizer)
            for name, answer, _ in answers
        ]
        found = tally.fitted(row, found)
        if found is not None:
            texts += found
            labels += [label for _, _, label in answers]
    data = LabelledCompletions(
        _padded(texts, tally.bucket(path, texts, mixed=True), tokenizer), jnp.array(labels, bool)
    )
    return tally.report(data, len(rows), texts)


def read_prompts(
    path: str | Path,
    tokenizer: AbstractTokenizer,
    context: int,
    *,
    too_long: TooLong = "refuse",
    columns: Columns | None = None,
) -> Read[Prompts]:
    """Prompts to answer: the column `prompt`, of texts or conversations.

    **Arguments:** `context`: tokens of a prompt at most, so that there is room for an answer; the
    rest as of `read_completions`, which raises the same.
    """
    path = Path(path)
    rows = list(_rows(path, columns))
    if "prompt" not in rows[0].fields:
        raise rows[0].missing("prompt", "prompts are needed, ")
    texts, tally = [], _Tally(context, too_long)
    for row in rows:
        text = _tokenised(
            row, [(_prompt_text(row, row.given("prompt"), tokenizer), False)], tokenizer
        )
        fitted = tally.fitted(row, [text])
        if fitted is not None:
            texts += fitted
    padded = _padded(texts, tally.bucket(path, texts), tokenizer)
    length = jnp.array([len(text.tokens) for text in texts], jnp.int32)
    return tally.report(Prompts(padded.tokens, length), len(rows), texts)


def _no_conversations(path: Path) -> DataError:
    return DataError(
        f"{path}: only_answers is about conversations in a column 'messages', and there are none: "
        "leave it out"
    )


# Rows -------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """One row of a file, which says where it is when it complains."""

    path: Path
    number: int
    fields: dict[str, Any]

    def error(self, sentence: str) -> DataError:
        return DataError(f"{self.path}, row {self.number}: {sentence}")

    def missing(self, name: str, need: str) -> DataError:
        free = [field for field in self.fields if field not in _COLUMNS]
        if not free:
            return DataError(f"{self.path}: {need}and there is no column '{name}'")
        known = nearest(name, free, "column").removeprefix(f"unknown column '{name}': ")
        return DataError(
            f"{self.path}: {need}and there is no column '{name}' ({known.rstrip('.')}): rename the "
            f"one that it is, or say so with --columns {name}=… (columns={{'{name}': …}} in Python)"
        )

    def given(self, name: str) -> Any:
        if self.fields.get(name) is None:
            raise self.error(f"'{name}' is missing: fill it, or remove the row")
        return self.fields[name]

    def text(self, name: str) -> str:
        value = self.given(name)
        if not isinstance(value, str):
            raise self.error(
                f"'{name}' must be a text or a list of messages, not {_kind_of(value)}"
            )
        return value

    def messages(self, name: str, value: Any = None) -> list[dict[str, str]]:
        value = self.given(name) if value is None else value
        if not isinstance(value, list):
            raise self.error(f"'{name}' must be a list of messages, not {_kind_of(value)}")
        if not value:
            raise self.error(f"'{name}' holds no message")
        return [
            self.message(message, f"message {number} of '{name}'")
            for number, message in enumerate(value, 1)
        ]

    def message(self, message: Any, where: str) -> dict[str, str]:
        if not isinstance(message, dict):
            raise self.error(f"{where} must have a 'role' and a 'content'")
        if "from" in message and "role" not in message:
            # As in ShareGPT's conversations.
            speaker = str(message["from"])
            message = {"role": _SPEAKERS.get(speaker, speaker), "content": message.get("value")}
        role = message.get("role")
        if role is None:
            raise self.error(f"{where} has no 'role': say who speaks ({', '.join(ROLES)})")
        if role not in ROLES:
            raise self.error(f"{where}: {nearest(str(role), ROLES, 'role')}")
        if message.get("tool_calls"):
            raise self.error(
                f"{where} calls tools, which is not learned from yet: write the call into its "
                "'content', or remove the row"
            )
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            texts = [part for part in parts if isinstance(part, str)]
            if len(texts) < len(content):
                raise self.error(f"the 'content' of {where} has a part that is not a text")
            content = "".join(texts)
        if not isinstance(content, str):
            raise self.error(f"the 'content' of {where} must be a text")
        return {**message, "content": content}

    def label(self) -> bool:
        value = self.given("label")
        # Tables of text (CSV) hold labels as texts, and some hold numbers.
        known = {"true": True, "1": True, "false": False, "0": False}
        # A column of numbers with gaps makes them floats.
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(value, bool | int | str) and str(value).lower() in known:
            return known[str(value).lower()]
        raise self.error(
            f"'label' must be true (desirable) or false (undesirable), not {str(value)[:40]}"
        )

    def finite(self, name: str) -> float:
        value = self.fields.get(name)
        # Tables of text (CSV) hold numbers as texts.
        given = isinstance(value, int | float | str) and not isinstance(value, bool)
        try:
            number = float(value) if given and value is not None else math.nan
        except (OverflowError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"'{name}' must be a finite number, not {str(value)[:40]}")
        return number


def _kind_of(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", bool: "true or false", int: "a number"}
    return kinds.get(type(value), "a number" if isinstance(value, float) else "this")


def _rows(path: Path, columns: Columns | None) -> Iterator[_Row]:
    """Every row, its columns named by their roles."""
    names = {column: role for role, column in (columns or {}).items()}
    for role in columns or {}:
        if role not in _COLUMNS:
            raise DataError(nearest(role, _COLUMNS, "column of texts"))
    found = 0
    for number, fields in stored_rows(path):
        found += 1
        for column in names:
            if column not in fields and found == 1:
                raise DataError(f"{path}: {nearest(column, fields, 'column')}")
        renamed = {names.get(key, key): value for key, value in fields.items()}
        if "reward" not in renamed and "score" in renamed:
            renamed["reward"] = renamed["score"]
        if "messages" not in renamed and "conversations" in renamed:
            renamed["messages"] = renamed["conversations"]
        for name, what in _NOT_HONOURED.items():
            if renamed.get(name):
                raise DataError(
                    f"{path}, row {number}: the column '{name}' holds {what}, which cannot be "
                    "honoured yet: remove the column to learn without"
                )
        yield _Row(path, number, renamed)
    if not found:
        raise DataError(f"{path}: there are no rows in it")


# Prompt and response ----------------------------------------------------------------------------

Segment = tuple[str, bool]
"""A piece of text, and whether it is response."""


def _segments(row: _Row, kind, tokenizer: AbstractTokenizer, only_answers: bool) -> list[Segment]:
    if kind == ("text",):
        return [(_filled(row, "text", row.text("text")), True)]
    if kind == ("messages",):
        messages = row.messages("messages")
        if not only_answers:
            whole = _conversation(row, messages, tokenizer, answer_follows=False)
            return [(_filled(row, "messages", whole), True)]
        return _answers(row, messages, tokenizer)
    if "prompt" not in row.fields:
        raise row.missing("prompt", "completions need 'prompt' and 'completion', ")
    return _prompted(row, row.given("prompt"), row.given("completion"), "completion", tokenizer)


def _answers(row: _Row, messages, tokenizer: AbstractTokenizer) -> list[Segment]:
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            _filled(row, f"the content of message {i + 1}", message["content"])
    if (marked := _marked_answers(row, messages, tokenizer)) is not None:
        return marked
    segments, done = [], ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _conversation(row, messages[:i], tokenizer, answer_follows=True) if i else ""
        after = _conversation(row, messages[: i + 1], tokenizer, answer_follows=False)
        if not (before.startswith(done) and after.startswith(before)):
            raise row.error(
                "the chat template changes earlier messages when later ones follow, so that the "
                "answers cannot be told apart: leave only_answers off"
            )
        segments += [(before[len(done) :], False), (after[len(before) :], True)]
        done = after
    if not segments:
        raise row.error("'messages' holds no message of the assistant, so there is no answer")
    return segments


def _marked_answers(row: _Row, messages, tokenizer: AbstractTokenizer) -> list[Segment] | None:
    """What the assistant says, where the chat template marks it."""
    try:
        found = tokenizer.answers(messages)
    except DataError as error:
        raise row.error(str(error)) from None
    if found is None:
        return None
    if not found.answers:
        raise row.error("'messages' holds nothing that the chat template marks as an answer")
    segments, done = [], 0
    for begin, end in found.answers:
        segments += [(found.text[done:begin], False), (found.text[begin:end], True)]
        done = end
    return [*segments, (found.text[done:], False)] if found.text[done:] else segments


def _with_prompt(row: _Row) -> tuple[Any, Any, Any]:
    """Prompt, chosen and rejected, where the prompt may be in the other two."""
    chosen, rejected = row.given("chosen"), row.given("rejected")
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise row.error("'chosen' and 'rejected' must both be texts, or both lists of messages")
    if chosen == rejected:
        raise row.error("'chosen' and 'rejected' are the same, so nothing is preferred")
    prompt = row.fields.get("prompt")
    # A prompt in text beside whole conversations repeats what these begin with.
    if prompt is not None and (isinstance(prompt, list) or not isinstance(chosen, list)):
        return prompt, chosen, rejected
    if isinstance(chosen, list):
        chosen, rejected = row.messages("chosen"), row.messages("rejected")
    else:
        chosen, rejected = row.text("chosen"), row.text("rejected")
    length = 0
    for first, second in zip(chosen, rejected):
        if first != second:
            break
        length += 1
    if isinstance(chosen, str) and length and chosen[length - 1] == " ":
        # Tokenizers join a space to the word after it.
        length -= 1
    if not length and isinstance(chosen, list):
        raise row.error("'chosen' and 'rejected' have no first message in common, and no 'prompt'")
    return chosen[:length], chosen[length:], rejected[length:]


def _prompted(
    row: _Row, prompt: Any, answer: Any, name: str, tokenizer: AbstractTokenizer
) -> list[Segment]:
    if isinstance(prompt, list) != isinstance(answer, list):
        raise row.error(f"'prompt' and '{name}' must both be texts, or both lists of messages")
    before = _prompt_text(row, prompt, tokenizer)
    if not isinstance(answer, list):
        if not isinstance(answer, str):
            raise row.error(f"'{name}' must be a text, not {_kind_of(answer)}")
        return [(before, False), (_filled(row, name, answer), True)]
    if not answer:
        raise row.error(f"'{name}' is empty: there is nothing to learn from it")
    messages = row.messages(name, answer)
    _filled(row, name, "".join(message["content"] for message in messages))
    whole = _conversation(row, [*prompt, *messages], tokenizer, answer_follows=False)
    # Some templates end a prompt in a way in which no answer begins.
    length = next((i for i, (a, b) in enumerate(zip(before, whole)) if a != b), len(before))
    return [(whole[:length], False), (whole[length:], True)]


def _prompt_text(row: _Row, prompt: Any, tokenizer: AbstractTokenizer) -> str:
    if isinstance(prompt, list):
        messages = row.messages("prompt", prompt)
        if messages[-1]["role"] == "system":
            raise row.error("'prompt' ends with a message of the system, which nobody answers")
        # TRL continues a last message of the assistant; a template closes it.
        follows = messages[-1]["role"] != "assistant"
        return _conversation(row, messages, tokenizer, answer_follows=follows)
    if not isinstance(prompt, str):
        raise row.error(f"'prompt' must be a text or a list of messages, not {_kind_of(prompt)}")
    return prompt


def _conversation(row: _Row, messages, tokenizer: AbstractTokenizer, *, answer_follows) -> str:
    try:
        return tokenizer.conversation(messages, answer_follows=answer_follows)
    except DataError as error:
        raise row.error(str(error)) from None


def _filled(row: _Row, name: str, text: str) -> str:
    if not text.strip():
        raise row.error(f"'{name}' is empty: there is nothing to learn from it")
    return text


# Tokens -----------------------------------------------------------------------------------------


class _Text(NamedTuple):
    """Tokens, and which of them are response."""

    tokens: list[int]
    response: list[bool]
    marks: int

    @property
    def prompt(self) -> int:
        """Tokens before the first one of a response."""
        return self.response.index(True) if True in self.response else len(self.tokens)


def _tokenised(row: _Row, segments: Sequence[Segment], tokenizer: AbstractTokenizer) -> _Text:
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
    return _Text(tokens, response, len(tokenizer.begin))


def _has_ended(tokens: list[int], response: list[bool], tokenizer: AbstractTokenizer) -> bool:
    """Whether the response brings its end, as chat templates write it, with a line break after it.

    Without one a model would never learn to stop, so that it is added where a template writes none.
    """
    if tokenizer.end < 0:
        return True
    ends = tokenizer.ends
    last = max((i for i, t in enumerate(tokens) if t in ends and response[i]), default=-1)
    return last >= 0 and not tokenizer.decode(tokens[last + 1 :]).strip()


class _Tally:
    """Sees to rows that are too long, and counts them."""

    def __init__(self, context: int, too_long: TooLong):
        check_choice(too_long, TooLong, "too_long")
        self.context, self.too_long = context, too_long
        self.dropped = self.cut = 0

    def fitted(self, row: _Row, texts: list[_Text]) -> list[_Text] | None:
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

    def _reason(self, text: _Text) -> str:
        prompt, total = text.prompt, len(text.tokens)
        if prompt >= self.context:
            return f"a prompt of {prompt} tokens does not fit into a context of {self.context}"
        return (
            f"a prompt of {prompt} tokens and a response of {total - prompt} do not fit into a "
            f"context of {self.context}"
        )

    def _shortened(self, row: _Row, text: _Text, over: int) -> _Text:
        """`over`: of the longest text of the row, since the prompt stays the same for all."""
        if self.too_long == "cut_response":
            if text.prompt >= self.context:
                raise row.error(self._reason(text) + ", so that nothing is left of the response")
            return _Text(text.tokens[: self.context], text.response[: self.context], text.marks)
        if text.prompt - over < max(text.marks, 1):
            raise row.error(self._reason(text) + ", even without the prompt: cut or drop it")
        kept = text.marks + over
        return _Text(
            text.tokens[: text.marks] + text.tokens[kept:],
            text.response[: text.marks] + text.response[kept:],
            text.marks,
        )

    def bucket(self, path: Path, texts: list[_Text], *, mixed: bool = False) -> int:
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

    def report(self, data: Record, rows: int, texts: list[_Text]) -> Read[Record]:
        tokens = sum(len(text.tokens) for text in texts)
        return Read(data, rows, self.dropped, self.cut, tokens)


def _padded(texts: list[_Text], width: int, tokenizer: AbstractTokenizer) -> Completions:
    tokens = np.full((len(texts), width), tokenizer.padding, np.int32)
    response = np.zeros((len(texts), width), bool)
    for i, text in enumerate(texts):
        tokens[i, : len(text.tokens)] = text.tokens
        response[i, : len(text.tokens)] = text.response
    return Completions(jnp.asarray(tokens), jnp.asarray(response))


def _windows(path: Path, tokenizer: AbstractTokenizer, context: int) -> Read[Completions]:
    """One long text in pieces of the context, each behind the tokens that texts begin with."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the path")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: it is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if not text.strip():
        raise DataError(f"{path}: there is no text in it")
    marks = list(tokenizer.begin)
    room = context - len(marks)
    if room < 2:
        raise DataError(f"{path}: a context of {context} holds no text: take a longer one")
    whole = tokenizer.encode(text) + ([tokenizer.end] if tokenizer.end >= 0 else [])
    texts = []
    for start in range(0, len(whole), room):
        tokens = [*marks, *whole[start : start + room]]
        # The first token is context alone where nothing stands before it.
        response = [i >= max(len(marks), 1) for i in range(len(tokens))]
        if any(response):
            texts.append(_Text(tokens, response, len(marks)))
    tally = _Tally(context, "refuse")
    data = _padded(texts, tally.bucket(path, texts), tokenizer)
    return tally.report(data, 1, texts)
