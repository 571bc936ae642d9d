"""Which part of a row is prompt, and which is response."""

from typing import Any, NamedTuple

from headwater.core.errors import DataError
from headwater.texts.fields import Row, kind_of
from headwater.texts.tokenizers import AbstractTokenizer


class Parts(NamedTuple):
    """A row as one text, and what of it is response.

    **Arguments:** `text`; `prompt`: what comes before the response, as it is alone: the whole text
    where nothing is answered yet, and nothing where all is learned from; `answers`: in its place,
    where responses begin and end in the text; `finished`: the model's own template has put there
    what texts begin and end with.
    """

    text: str
    prompt: str = ""
    answers: tuple[tuple[int, int], ...] | None = None
    finished: bool = False


def parts_of(row: Row, kind, tokenizer: AbstractTokenizer, only_answers: bool) -> Parts:
    """The parts of a row, whose columns are `kind`. Raises `DataError` for what cannot be used."""
    if kind == ("text",):
        return Parts(_filled(row, "text", row.text("text")))
    if kind == ("messages",):
        messages = row.messages("messages")
        if not only_answers:
            whole = _conversation(row, messages, tokenizer, answer_follows=False)
            return Parts(_filled(row, "messages", whole), finished=tokenizer.templated)
        return _answers(row, messages, tokenizer)
    return prompted(row, row.given("prompt"), row.given("completion"), "completion", tokenizer)


def _answers(row: Row, messages, tokenizer: AbstractTokenizer) -> Parts:
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            _filled(row, f"the content of message {i + 1}", message["content"])
    if (marked := _marked_answers(row, messages, tokenizer)) is not None:
        return marked
    answers, done = [], ""
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
        answers.append((len(before), len(after)))
        done = after
    if not answers:
        raise row.error("'messages' holds no message of the assistant, so there is no answer")
    return Parts(done, answers=tuple(answers), finished=tokenizer.templated)


def _marked_answers(row: Row, messages, tokenizer: AbstractTokenizer) -> Parts | None:
    """What the assistant says, where the chat template marks it."""
    try:
        found = tokenizer.answers(messages, **_settings(row))
    except DataError as error:
        raise row.error(str(error)) from None
    if found is None:
        return None
    if not found.answers:
        raise row.error("'messages' holds nothing that the chat template marks as an answer")
    return Parts(found.text, answers=found.answers, finished=True)


def with_prompt(row: Row) -> tuple[Any, Any, Any]:
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
    # Where one goes on from the other, something is left to answer with.
    length = max(min(length, len(chosen) - 1, len(rejected) - 1), 0)
    if isinstance(chosen, str) and length and chosen[length - 1] == " ":
        # Tokenizers join a space to the word after it.
        length -= 1
    if not length and isinstance(chosen, list):
        raise row.error("'chosen' and 'rejected' have no first message in common, and no 'prompt'")
    return chosen[:length], chosen[length:], rejected[length:]


def prompted(row: Row, prompt: Any, answer: Any, name: str, tokenizer: AbstractTokenizer) -> Parts:
    """A prompt and its answer, which is the field called `name`. Raises `DataError`."""
    if isinstance(prompt, list) != isinstance(answer, list):
        raise row.error(f"'prompt' and '{name}' must both be texts, or both lists of messages")
    before = prompt_of(row, prompt, tokenizer)
    if not isinstance(answer, list):
        if not isinstance(answer, str):
            raise row.error(f"'{name}' must be a text, not {kind_of(answer)}")
        if not before.text and not tokenizer.begin:
            raise row.error("'prompt' is empty, and the tokenizer has no token to begin with")
        return Parts(before.text + _filled(row, name, answer), before.text)
    if not answer:
        raise row.error(f"'{name}' is empty: there is nothing to learn from it")
    messages = row.messages(name, answer)
    _filled(row, name, "".join(message["content"] for message in messages))
    messages = [*row.messages("prompt", prompt), *messages]
    whole = _conversation(row, messages, tokenizer, answer_follows=False)
    return Parts(whole, before.text, finished=tokenizer.templated)


def prompt_of(row: Row, prompt: Any, tokenizer: AbstractTokenizer) -> Parts:
    """A prompt, after the chat template where it is a conversation. Raises `DataError`."""
    if isinstance(prompt, list):
        messages = row.messages("prompt", prompt)
        if messages[-1]["role"] == "system":
            raise row.error("'prompt' ends with a message of the system, which nobody answers")
        text = _conversation(row, messages, tokenizer, answer_follows=True)
        return Parts(text, text, finished=tokenizer.templated)
    if not isinstance(prompt, str):
        raise row.error(f"'prompt' must be a text or a list of messages, not {kind_of(prompt)}")
    return Parts(prompt, prompt)


def _conversation(row: Row, messages, tokenizer: AbstractTokenizer, *, answer_follows) -> str:
    try:
        return tokenizer.conversation(messages, answer_follows=answer_follows, **_settings(row))
    except DataError as error:
        raise row.error(str(error)) from None


def _settings(row: Row) -> dict[str, Any]:
    """What the row tells the chat template besides, in TRL's column of this name."""
    given = row.fields.get("chat_template_kwargs") or {}
    if not isinstance(given, dict):
        raise row.error(f"'chat_template_kwargs' must be an object, not {kind_of(given)}")
    return given


def _filled(row: Row, name: str, text: str) -> str:
    if not text.strip():
        raise row.error(f"'{name}' is empty: there is nothing to learn from it")
    return text
