"""Texts to learn from, in the columns that TRL uses: JSON Lines, Parquet and plain text files."""

from pathlib import Path

import jax.numpy as jnp

from headwater.core.errors import DataError
from headwater.core.records import CompletionComparisons, Completions, LabelledCompletions
from headwater.core.tokens import Prompts
from headwater.texts.fields import Columns, checked_rows
from headwater.texts.fitting import Read, Tally, Text, TooLong, padded, tokenised, with_one_prompt
from headwater.texts.segments import parts_of, prompt_of, prompted, with_prompt
from headwater.texts.tokenizers import AbstractTokenizer


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
    rows = list(checked_rows(path, columns))
    kinds = (("prompt", "completion"), ("messages",), ("text",))
    names = rows[0].fields
    kind = next((kind for kind in kinds if kind[-1] in names), None)
    if kind is None:
        raise rows[0].missing("completion", "completions need 'prompt' and 'completion', ")
    if kind[0] not in names:
        raise rows[0].missing("prompt", "completions need 'prompt' and 'completion', ")
    if only_answers and kind != ("messages",):
        raise _no_conversations(path)
    judged = "reward" in names
    texts, rewards, tally = [], [], Tally(context, too_long)
    for row in rows:
        parts = parts_of(row, kind, tokenizer, only_answers)
        reward = row.finite("reward") if judged else 0.0
        text = tally.fitted(row, [tokenised(row, parts, tokenizer)])
        if text is not None:
            texts += text
            rewards.append(reward)
    data = padded(texts, tally.bucket(path, texts), tokenizer)
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
    rows = list(checked_rows(path, columns))
    for name in ("chosen", "rejected"):
        if name not in rows[0].fields:
            raise rows[0].missing(name, "comparisons need 'chosen' and 'rejected', ")
    chosen, rejected, tally = [], [], Tally(context, too_long)
    for row in rows:
        prompt, *answers = with_prompt(row)
        pair = [
            tokenised(row, prompted(row, prompt, answer, name, tokenizer), tokenizer)
            for name, answer in zip(("chosen", "rejected"), answers)
        ]
        pair = tally.fitted(row, with_one_prompt(pair))
        if pair is not None:
            chosen.append(pair[0])
            rejected.append(pair[1])
    width = tally.bucket(path, chosen + rejected)
    data = CompletionComparisons(
        padded(chosen, width, tokenizer), padded(rejected, width, tokenizer)
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
    rows = list(checked_rows(path, columns))
    names = rows[0].fields
    paired = "label" not in names and "chosen" in names and "rejected" in names
    if not paired:
        for name in ("label", "completion", "prompt"):
            if name not in names:
                need = "labelled completions need 'prompt', 'completion' and 'label', "
                raise rows[0].missing(name, need)
    texts, labels, tally = [], [], Tally(context, too_long)
    for row in rows:
        if paired:
            prompt, *answers = with_prompt(row)
            answers = list(zip(("chosen", "rejected"), answers, (True, False)))
        else:
            prompt, label = row.given("prompt"), row.label()
            answers = [("completion", row.given("completion"), label)]
        found = [
            tokenised(row, prompted(row, prompt, answer, name, tokenizer), tokenizer)
            for name, answer, _ in answers
        ]
        found = tally.fitted(row, found)
        if found is not None:
            texts += found
            labels += [label for _, _, label in answers]
    data = LabelledCompletions(
        padded(texts, tally.bucket(path, texts, mixed=True), tokenizer), jnp.array(labels, bool)
    )
    return tally.report(data, len(rows), texts)


def read_prompts(
    path: str | Path,
    tokenizer: AbstractTokenizer,
    context: int,
    *,
    too_long: TooLong = "refuse",
    columns: Columns | None = None,
    new_tokens: int = 0,
) -> Read[Prompts]:
    """Prompts to answer: the column `prompt`, of texts or conversations.

    **Arguments:** `new_tokens`: of the context, kept free for an answer; the rest as of
    `read_completions`, which raises the same.
    """
    path = Path(path)
    rows = list(checked_rows(path, columns))
    if "prompt" not in rows[0].fields:
        raise rows[0].missing("prompt", "prompts are needed, ")
    texts, tally = [], Tally(context - new_tokens, too_long, new_tokens)
    for row in rows:
        text = tokenised(row, prompt_of(row, row.given("prompt"), tokenizer), tokenizer)
        fitted = tally.fitted(row, [text])
        if fitted is not None:
            texts += fitted
    rows_of_tokens = padded(texts, tally.bucket(path, texts), tokenizer)
    length = jnp.array([len(text.tokens) for text in texts], jnp.int32)
    return tally.report(Prompts(rows_of_tokens.tokens, length), len(rows), texts)


def _no_conversations(path: Path) -> DataError:
    return DataError(
        f"{path}: only_answers is about conversations in a column 'messages', and there are none: "
        "leave it out"
    )


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
            texts.append(Text(tokens, response, len(marks)))
    tally = Tally(context, "refuse")
    data = padded(texts, tally.bucket(path, texts), tokenizer)
    return tally.report(data, 1, texts)
