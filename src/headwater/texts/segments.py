"""Which pieces of a row are prompt, and which are response."""

from typing import Any

from headwater.core.errors import DataError
from headwater.texts.fields import Row, kind_of
from headwater.texts.tokenizers import AbstractTokenizer

Segment = tuple[str, bool]
"""A piece of text, and whether it is response."""


def segments_of(row: Row, kind, tokenizer: AbstractTokenizer, only_answers: bool) -> list[Segment]:
    """The pieces of a row, whose columns are `kind`. Raises `DataError` for what cannot be used."""
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
    return prompted(row, row.given("prompt"), row.given("completion"), "completion", tokenizer)


def _answers(row: Row, messages, tokenizer: AbstractTokenizer) -> list[Segment]:
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


def _marked_answers(row: Row, messages, tokenizer: AbstractTokenizer) -> list[Segment] | None:
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
    if isinstance(chosen, str) and length and chosen[length - 1] == " ":
        # Tokenizers join a space to the word after it.
        length -= 1
    if not length and isinstance(chosen, list):
        raise row.error("'chosen' and 'rejected' have no first message in common, and no 'prompt'")
    return chosen[:length], chosen[length:], rejected[length:]


def prompted(
    row: Row, prompt: Any, answer: Any, name: str, tokenizer: AbstractTokenizer
) -> list[Segment]:
    """A prompt and its answer, which is the field called `name`. Raises `DataError`."""
    if isinstance(prompt, list) != isinstance(answer, list):
        raise row.error(f"'prompt' and '{name}' must both be texts, or both lists of messages")
    before = prompt_text(row, prompt, tokenizer)
    if not isinstance(answer, list):
        if not isinstance(answer, str):
            raise row.error(f"'{name}' must be a text, not {kind_of(answer)}")
        return [(before, False), (_filled(row, name, answer), True)]
    if not answer:
        raise row.error(f"'{name}' is empty: there is nothing to learn from it")
    messages = row.messages(name, answer)
    _filled(row, name, "".join(message["content"] for message in messages))
    whole = _conversation(row, [*prompt, *messages], tokenizer, answer_follows=False)
    # Some templates end a prompt in a way in which no answer begins.
    length = next((i for i, (a, b) in enumerate(zip(before, whole)) if a != b), len(before))
    return [(whole[:length], False), (whole[length:], True)]


def prompt_text(row: Row, prompt: Any, tokenizer: AbstractTokenizer) -> str:
    """A prompt as text, after the chat template where it is a conversation. Raises `DataError`."""
    if isinstance(prompt, list):
        messages = row.messages("prompt", prompt)
        if messages[-1]["role"] == "system":
            raise row.error("'prompt' ends with a message of the system, which nobody answers")
        # TRL continues a last message of the assistant; a template closes it.
        follows = messages[-1]["role"] != "assistant"
        return _conversation(row, messages, tokenizer, answer_follows=follows)
    if not isinstance(prompt, str):
        raise row.error(f"'prompt' must be a text or a list of messages, not {kind_of(prompt)}")
    return prompt


def _conversation(row: Row, messages, tokenizer: AbstractTokenizer, *, answer_follows) -> str:
    try:
        return tokenizer.conversation(messages, answer_follows=answer_follows)
    except DataError as error:
        raise row.error(str(error)) from None


def _filled(row: Row, name: str, text: str) -> str:
    if not text.strip():
        raise row.error(f"'{name}' is empty: there is nothing to learn from it")
    return text
