"""Tokenizers: round trips, marks, conversations, and what is missing."""

import json
import sys

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.texts import chat_templates
from headwater.texts.chat_templates import marks_answers, rendered
from headwater.texts.tokenizers import ByteTokenizer, FileTokenizer, plain_conversation

TEXT = "Grüße, 世界 🙂\n\tend"
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]


def test_bytes():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé") == [97, 195, 169]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.decode(np.array([256, 97, 257, 258])) == "a"
    assert tokenizer.decode([195]) == "\ufffd"
    tokenizer.fits(259)
    with pytest.raises(DataError, match="has 259 tokens but the model's embedding only 258"):
        tokenizer.fits(258)


def test_conversations_of_models_without_a_template():
    assert plain_conversation(MESSAGES[:1], answer_follows=True) == "<|user|>\nHi\n<|assistant|>\n"
    whole = plain_conversation(MESSAGES, answer_follows=False)
    assert whole == "<|user|>\nHi\n<|assistant|>\nYes\n"


def test_the_byte_tokenizer_as_a_file(tmp_path):
    pytest.importorskip("tokenizers")
    ByteTokenizer().write(tmp_path)
    stored = FileTokenizer(tmp_path)
    assert stored.encode(TEXT) == ByteTokenizer().encode(TEXT)
    assert stored.decode([256, *stored.encode(TEXT), 257]) == TEXT
    assert (stored.size, stored.begin, stored.end, stored.padding) == (259, (256,), 257, 258)
    assert stored.encode("<|end|>") == [257]
    assert stored.conversation(MESSAGES, answer_follows=False) == plain_conversation(
        MESSAGES, answer_follows=False
    )


def test_transformers_loads_the_byte_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    ByteTokenizer().write(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT)["input_ids"] == [256, *ByteTokenizer().encode(TEXT)]
    assert theirs.eos_token_id == 257 and theirs.pad_token_id == 258


def test_where_the_end_is_found(tmp_path):
    pytest.importorskip("tokenizers")
    ByteTokenizer().write(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"eos_token": {"content": "<|padding|>"}}))
    assert FileTokenizer(tmp_path).end == 258
    config.unlink()
    assert FileTokenizer(tmp_path).end == -1
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [65, 66]}))
    assert FileTokenizer(tmp_path).end == 65
    assert FileTokenizer(tmp_path).ends == (65, 66)
    generation = tmp_path / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [66, 67]}))
    assert FileTokenizer(tmp_path).ends == (65, 66, 67)
    generation.unlink()
    config.write_text(json.dumps({"eos_token": "</s>"}))
    with pytest.raises(DataError, match=r"its eos_token '</s>' is no token of tokenizer.json"):
        FileTokenizer(tmp_path)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ raise_exception('no tools') }}{% endif %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def test_the_template_of_a_model(tmp_path):
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    ByteTokenizer().write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer = FileTokenizer(tmp_path)
    text = tokenizer.conversation(MESSAGES[:1], answer_follows=True)
    assert text == "<|begin|>[user] Hi<|end|>\n[assistant] "
    with pytest.raises(DataError, match="chat template refuses this conversation: no tools"):
        tokenizer.conversation([{"role": "tool", "content": ""}], answer_follows=False)
    # Templates are data: they reach nothing of the interpreter.
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(DataError, match="chat template refuses"):
        FileTokenizer(tmp_path).conversation(MESSAGES, answer_follows=False)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x'|center(2000000000) }}",
        "{{ '%2000000000d'|format(1) }}",
        "{{ '%2000000000d' % 1 }}",
        "{{ 'x'.ljust(2000000000) }}",
        "{{ '{:2000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 2000000000) }}",
        "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
        "{{ ('x' * 100000)|replace('x', 'y' * 100000) }}",
        "{{ ('x' * 100000).join('y' * 100000) }}",
        "{{ ('y' * 100000)|join('x' * 100000) }}",
        "{{ [1]|batch(2000000000, 0)|list }}",
        "{{ 10 ** 1000000000 }}",
        "{{ 'x' * 2000000000 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_templates_that_take_too_much_are_ended(tmp_path, template):
    pytest.importorskip("jinja2")
    with pytest.raises(DataError, match="chat template refuses this conversation"):
        rendered(template, messages=MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ '{:2000000000}'.format(1) }}",
        "{{ '{x:2000000000}'.format_map({'x': 1}) }}",
        "{{ '%2000000000d'|format(1) }}",
    ],
)
def test_padding_is_refused_before_it_is_made(template):
    # The limit of memory alone would not do: a process that held more before may hold it again.
    pytest.importorskip("jinja2")
    with pytest.raises(DataError, match="it pads a text too far"):
        rendered(template, messages=MESSAGES)


def test_what_templates_do_is_left_to_them():
    pytest.importorskip("jinja2")
    long = "a\n" * 600_000
    for template, made in (
        ("{{ 2 ** 3 }}", "8"),
        ("{{ '**%s**'|format('12345') }}", "**12345**"),
        ("{{ ['a', 'b']|join(', ') }}{{ 'ab'|replace('a', 'c') }}", "a, bcb"),
        ("{{ '{0} {0}'.format(1) }}{{ ' x '.strip() }}", "1 1x"),
        ("{{ {'a': 1}|tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ messages|length }}{{ messages[0].content|trim }}", "2Hi"),
    ):
        assert rendered(template, messages=[{"content": "Hi"}, {"content": ""}]).text == made
    assert rendered("{{ text|replace('\n', ' ') }}", text=long).text == long.replace("\n", " ")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is missing: copy it there, or use the byte tokenizer"):
        FileTokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(DataError, match=r"only the older vocab.json"):
        FileTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(SpecificationError, match=r"needs the package tokenizers: install head"):
            FileTokenizer(tmp_path)
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"tokenizer.json: it cannot be read as a tokenizer"):
        FileTokenizer(tmp_path)
    ByteTokenizer().write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    tokenizer = FileTokenizer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jinja2.exceptions", None)
        patch.setitem(sys.modules, "jinja2.sandbox", None)
        with pytest.raises(SpecificationError, match="chat template needs the package jinja2"):
            tokenizer.conversation(MESSAGES, answer_follows=False)


MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}\n{% else %}U:{{ m.content }}\n{% endif %}{% endfor %}"
)


def test_a_template_may_mark_what_the_assistant_says(tmp_path):
    pytest.importorskip("jinja2")
    found = rendered(
        MARKED,
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes"},
            {"role": "user", "content": "<b>"},
            {"role": "assistant", "content": "No"},
        ],
        eos_token="$",
    )
    # As in transformers, the line break after a block is the block's.
    assert found.text == "U:Hi\nA:Yes$U:<b>\nA:No$"
    assert [found.text[begin:end] for begin, end in found.answers] == ["Yes$", "No$"]
    assert rendered("{{ 1 }}").answers == ()
    assert marks_answers(MARKED) and not marks_answers("{{ generation }}")


def test_a_template_is_read_once():
    pytest.importorskip("jinja2")
    chat_templates._compiled.cache_clear()
    for number in range(3):
        assert rendered("{{ n }}.", n=number).text == f"{number}."
    assert chat_templates._compiled.cache_info().misses == 1
