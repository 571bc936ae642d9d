"""Text to tokens and back: bytes, or the tokenizer that came with a model."""

import abc
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError, SpecificationError
from headwater.networks.hugging_face import ending_tokens
from headwater.texts.chat_templates import Rendered, marks_answers, rendered

Message = Mapping[str, str]
"""One turn of a conversation: who speaks (`role`) and what is said (`content`)."""

Placed = tuple[list[int], list[tuple[int, int]]]
"""Tokens, and the places of the text that they stand for."""

Tokens = Sequence[int] | np.ndarray | jax.Array
"""One row of tokens."""

ROLES = ("system", "developer", "user", "assistant", "tool")

_MARKS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Special tokens that templates are told."""

_REASONING = ("reasoning_content", "thinking", "reasoning")


class AbstractTokenizer(abc.ABC):
    """Cuts text into tokens, which are numbers from zero.

    **Attributes:** `size`: one more than the largest token; `begin`: the tokens that every text
    begins with; `end`: the one that is put behind a response, -1 if there is none; `ends`: all that
    end one, which may be more; `padding`.
    """

    size: int
    begin: tuple[int, ...]
    end: int
    padding: int

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a response."""
        return () if self.end < 0 else (self.end,)

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a piece of text, with nothing before and after it."""

    @abc.abstractmethod
    def encode_with_places(self, text: str) -> Placed:
        """The same tokens, and where in `text` each of them begins and ends."""

    def ended(self, text: str, tokens: list[int], places: list[tuple[int, int]]) -> Placed:
        """The tokens of a text with the one that ends it behind it, which there has to be."""
        return [*tokens, self.end], [*places, (len(text), len(text) + 1)]

    @property
    def templated(self) -> bool:
        """Whether conversations are rendered by the model's own template.

        That also writes what they begin and end with, so that nothing is put around them.
        """
        return False

    @abc.abstractmethod
    def decode(self, tokens: Tokens) -> str:
        """The text of tokens, without those that only mark beginning, end and padding."""

    @abc.abstractmethod
    def conversation(
        self, messages: Sequence[Message], *, answer_follows: bool, **settings: Any
    ) -> str:
        """A conversation as one text, ending where the answer begins if one follows.

        **Arguments:** `settings`: what the template is told besides (`enable_thinking`, say).

        Raises `DataError` for a conversation that the template refuses.
        """

    def answers(self, messages: Sequence[Message], **settings: Any) -> Rendered | None:
        """A conversation as one text, with the places of the assistant's part.

        `None` where the template does not mark it. Raises as `conversation` does.
        """
        return None

    def decode_after(self, prompt: Tokens, tokens: Tokens) -> str:
        """The text that `tokens` add to that of `prompt`.

        What a token says may depend on whether it is the first: many tokenizers leave out the
        space that the first one begins with, and put one in behind the marks of a chat.
        """
        if len(prompt) and self.is_mark(int(prompt[-1])):
            return self.decode(tokens)
        before = self.decode(prompt)
        whole = self.decode(np.concatenate([np.asarray(prompt, int), np.asarray(tokens, int)]))
        return whole[len(before) :] if whole.startswith(before) else self.decode(tokens)

    def is_mark(self, token: int) -> bool:
        """Whether a token only marks a place, so that what follows begins anew."""
        return False

    def fits(self, vocabulary: int) -> None:
        """Raises `DataError` if a model with so many tokens does not know all of these."""
        if self.size > vocabulary:
            raise DataError(
                f"the tokenizer has {self.size} tokens but the model's embedding only "
                f"{vocabulary}: take the tokenizer that belongs to the model"
            )


class ByteTokenizer(AbstractTokenizer):
    """Every byte of UTF-8 is a token; beginning, end and padding are three more."""

    size = 259
    begin = (256,)
    end = 257
    padding = 258

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def encode_with_places(self, text: str) -> Placed:
        places = [(at, at + 1) for at, letter in enumerate(text) for _ in letter.encode("utf-8")]
        return self.encode(text), places

    def decode(self, tokens: Tokens) -> str:
        return bytes(int(t) for t in np.asarray(tokens, int) if 0 <= t < 256).decode(
            "utf-8", "replace"
        )

    def conversation(
        self, messages: Sequence[Message], *, answer_follows: bool, **settings: Any
    ) -> str:
        return plain_conversation(messages, answer_follows=answer_follows, **settings)

    def write(self, directory: str | Path) -> None:
        """Writes the same tokenizer as a `tokenizer.json` that other libraries load."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        marks = {"<|begin|>": 256, "<|end|>": 257, "<|padding|>": 258}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        begin = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}
        sequences = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
        ids = {"<|begin|>": {"id": "<|begin|>", "ids": [256], "tokens": ["<|begin|>"]}}
        description = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": number, "content": text, **flags, "special": True}
                for text, number in marks.items()
            ],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [begin, sequences[0]],
                "pair": [begin, *sequences],
                "special_tokens": ids,
            },
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "vocab": {character: byte for byte, character in enumerate(_byte_characters())},
                "merges": [],
            },
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "pad_token": "<|padding|>",
            "clean_up_tokenization_spaces": False,
        }
        for name, content in (("tokenizer.json", description), ("tokenizer_config.json", config)):
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (directory / name).write_text(text, encoding="utf-8")


def _byte_characters() -> list[str]:
    """The visible character that byte-level vocabularies write each byte as."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


def plain_conversation(
    messages: Sequence[Message], *, answer_follows: bool, **settings: Any
) -> str:
    """The form for models that bring none: each turn behind a line that says who speaks.

    Raises `DataError` for settings, which there is no template for.
    """
    if settings:
        raise DataError(
            f"the model has no chat template to be told {', '.join(map(repr, settings))}: leave "
            "'chat_template_kwargs' out"
        )
    text = "".join(f"<|{m['role']}|>\n{m['content']}\n" for m in messages)
    return text + "<|assistant|>\n" if answer_follows else text


class FileTokenizer(AbstractTokenizer):
    """The `tokenizer.json` in a model's directory.

    What begins a text is what its post-processor puts there; the end is `eos_token` of
    `tokenizer_config.json`, or else `eos_token_id` of `config.json`.

    Raises `DataError` for files that are missing or damaged, `SpecificationError` if the library
    `tokenizers` is not installed.
    """

    def __init__(self, directory: str | Path):
        directory = Path(directory)
        path = directory / "tokenizer.json"
        if not path.is_file():
            older = [
                name for name in ("tokenizer.model", "vocab.json") if (directory / name).exists()
            ]
            hint = (
                f"there is only the older {older[0]}: save the tokenizer with transformers' "
                "AutoTokenizer, which writes both"
                if older
                else "copy it there, or use the byte tokenizer"
            )
            raise DataError(f"{path} is missing: {hint}")
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise SpecificationError(
                "reading a tokenizer.json needs the package tokenizers: install "
                "headwater[language], or use the byte tokenizer"
            ) from None
        try:
            self.inner = Tokenizer.from_file(str(path))
        # The library raises plain exceptions.
        except Exception as error:
            raise DataError(f"{path}: it cannot be read as a tokenizer ({error})") from None
        self.inner.no_padding()
        self.inner.no_truncation()
        self.config = _json(directory / "tokenizer_config.json")
        known = self.inner.get_vocab(with_added_tokens=True)
        self.size = 1 + max(known.values(), default=-1)
        self.end = self._marked("eos_token", known, directory)
        self.directory = directory
        pad = self._marked("pad_token", known, None)
        self.padding = pad if pad >= 0 else max(self.end, 0)
        around = self.inner.encode("", add_special_tokens=True).ids
        begin = self._marked("bos_token", known, None)
        self.begin = tuple(token for token in around if token != self.end or token == begin)
        template = directory / "chat_template.jinja"
        self.template: Any = self.config.get("chat_template")
        if template.is_file():
            try:
                self.template = template.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise DataError(f"{template}: it cannot be read as text ({error})") from None
        if isinstance(self.template, list):
            named = {
                str(t.get("name")): t.get("template") for t in self.template if isinstance(t, dict)
            }
            self.template = named.get("default")
        if self.template is not None and not isinstance(self.template, str):
            raise DataError(f"{directory}: the chat template must be a text")

    @property
    def ends(self) -> tuple[int, ...]:
        first = () if self.end < 0 else (self.end,)
        more = [token for token in ending_tokens(self.directory) if token != self.end]
        return (*first, *more)

    def _marked(self, name: str, known: dict[str, int], directory: Path | None) -> int:
        text = self._text(name)
        if text is not None and text in known:
            return known[text]
        if text is not None:
            raise DataError(
                f"tokenizer_config.json: its {name} {text!r} is no token of tokenizer.json: take "
                "both files from the same model"
            )
        if directory is None:
            return -1
        found = _json(directory / "config.json").get(f"{name}_id")
        found = found[0] if isinstance(found, list) and found else found
        return found if isinstance(found, int) and not isinstance(found, bool) else -1

    def _text(self, name: str) -> str | None:
        found = self.config.get(name)
        found = found.get("content") if isinstance(found, dict) else found
        return found if isinstance(found, str) else None

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_with_places(self, text: str) -> Placed:
        encoded = self.inner.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def ended(self, text: str, tokens: list[int], places: list[tuple[int, int]]) -> Placed:
        added = self.inner.get_added_tokens_decoder().get(self.end)
        # Some swallow the space before them.
        if added is not None and added.lstrip:
            return self.encode_with_places(text + added.content)
        return [*tokens, self.end], [*places, (len(text), len(text) + 1)]

    def decode(self, tokens: Tokens) -> str:
        return self.inner.decode(np.asarray(tokens, int).tolist(), skip_special_tokens=True)

    def is_mark(self, token: int) -> bool:
        added = self.inner.get_added_tokens_decoder().get(token)
        return added is not None and added.special

    @property
    def templated(self) -> bool:
        return self.template is not None

    def conversation(
        self, messages: Sequence[Message], *, answer_follows: bool, **settings: Any
    ) -> str:
        if self.template is None:
            return plain_conversation(messages, answer_follows=answer_follows, **settings)
        return self._rendered(messages, answer_follows, settings).text

    def answers(self, messages: Sequence[Message], **settings: Any) -> Rendered | None:
        if self.template is None or not marks_answers(self.template):
            return None
        return self._rendered(messages, False, settings)

    def _rendered(
        self, messages: Sequence[Message], answer_follows: bool, settings: dict[str, Any]
    ) -> Rendered:
        values: dict[str, Any] = {
            name: text for name in _MARKS if (text := self._text(name)) is not None
        }
        given = {"messages": [_with_reasoning(m) for m in messages]}
        given |= {"add_generation_prompt": answer_follows, "tools": None, "documents": None}
        return rendered(self.template, **{**values, **settings, **given})


def _with_reasoning(message: Message) -> Message:
    """What was thought before the answer, under every name that templates look for."""
    found = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if found is None:
        return message
    return {"thinking": found, **message, "reasoning_content": found}


def begins_with_marks(tokenizer: AbstractTokenizer, tokens: Sequence[int]) -> bool:
    """Whether a text brings the tokens that texts begin with, as chat templates often do."""
    count = len(tokenizer.begin)
    return count > 0 and tuple(tokens[:count]) == tokenizer.begin


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: it cannot be read as JSON ({error})") from None
    return found if isinstance(found, dict) else {}


def read_tokenizer(directory: str | Path) -> AbstractTokenizer:
    """The tokenizer in a model's directory. Raises what `FileTokenizer` raises."""
    return FileTokenizer(directory)
