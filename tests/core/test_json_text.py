"""JSON of others: a value, or an error that its readers catch."""

import pytest

from headwater.core.json_text import parse


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '"\\ud800"',
        '"\ud800"',
        b'"\xed\xa0\x80"',
        '"\ud800"'.encode("utf-16", "surrogatepass"),
        b"\xff",
        "{",
    ],
)
def test_whatever_is_wrong_is_one_kind_of_error(text):
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize("text", ['{"a": [1, "\\ud83d\\ude00"]}', '{"a": [1, "😀"]}'])
def test_texts_and_bytes_say_the_same(text):
    assert parse(text) == parse(text.encode()) == {"a": [1, "😀"]}
