"""Texts in TRL's columns: where prompts end, what pads them, and what is refused."""

import gzip
import json

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.texts.texts import read_comparisons, read_completions, read_labelled, read_prompts
from headwater.texts.tokenizers import ByteTokenizer, FileTokenizer

BYTES = ByteTokenizer()


def written(tmp_path, *rows, name="data.jsonl"):
    path = tmp_path / name
    if name.endswith("parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(completions, i=0):
    """Prompt and response of a row as text, `$` for the end and `^` for the beginning."""
    tokens, response = np.asarray(completions.tokens[i]), np.asarray(completions.response[i])
    marks = {256: "^", 257: "$", 258: ""}

    def text(kept):
        return "".join(marks.get(int(t)) or (chr(t) if t < 256 else "") for t in tokens[kept])

    stop = np.flatnonzero(tokens != 258)[-1] + 1
    inside = np.arange(len(tokens)) < stop
    assert not response[~inside].any()
    return text(inside & ~response), text(response)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
def test_prompts_and_completions(tmp_path, name):
    rows = [
        {"prompt": "ab", "completion": "c", "score": 1},
        {"prompt": "a", "completion": "bcdefg", "score": -0.5},
    ]
    read = read_completions(written(tmp_path, *rows, name=name), BYTES, 64)
    assert read.data.tokens.shape == (2, 16)
    assert shown(read.data) == ("^ab", "c$")
    assert shown(read.data, 1) == ("^a", "bcdefg$")
    np.testing.assert_array_equal(read.data.reward, [1.0, -0.5])
    assert (read.rows, read.dropped, read.cut, read.tokens) == (2, 0, 0, 5 + 9)
    assert read_completions(tmp_path / name, BYTES, 9).data.tokens.shape == (2, 9)


def test_texts_and_renamed_columns(tmp_path):
    path = written(tmp_path, {"body": "abc"})
    read = read_completions(path, BYTES, 64, columns={"text": "body"})
    assert shown(read.data) == ("^", "abc$") and read.data.reward is None


def test_conversations(tmp_path):
    path = written(tmp_path, {"prompt": [user("Q")], "completion": [assistant("A")]})
    data = read_completions(path, BYTES, 64).data
    assert shown(data) == ("^<|user|>\nQ\n<|assistant|>\n", "A\n$")
    turns = [user("Q"), assistant("A"), user("R"), assistant("B")]
    path = written(tmp_path, {"messages": turns})
    whole = "<|user|>\nQ\n<|assistant|>\nA\n<|user|>\nR\n<|assistant|>\nB\n"
    assert shown(read_completions(path, BYTES, 64).data) == ("^", whole + "$")
    data = read_completions(path, BYTES, 64, only_answers=True).data
    assert shown(data)[1] == "A\nB\n$"


def test_the_end_is_there_once(tmp_path):
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    BYTES.write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}\n"
        "{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    tokenizer = FileTokenizer(tmp_path)
    path = written(tmp_path, {"prompt": [user("Q")], "completion": [assistant("A")]})
    # Nor are there two beginnings. The line break stays, as in what TRL prepares.
    assert shown(read_completions(path, tokenizer, 64).data) == ("^u:Q$\na:", "A$\n")
    path = written(tmp_path, {"prompt": "Q", "completion": "A<|end|>"})
    assert shown(read_completions(path, tokenizer, 64).data) == ("^Q", "A$")
    # Generation stops at any token that the model ends with, so that one of them is enough.
    path = written(tmp_path, {"prompt": "Q", "completion": "A!"})
    assert shown(read_completions(path, tokenizer, 64).data) == ("^Q", "A!$")
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [257, ord("!")]}))
    tokenizer = FileTokenizer(tmp_path)
    assert shown(read_completions(path, tokenizer, 64).data) == ("^Q", "A!")


def test_comparisons(tmp_path):
    rows = [
        {"prompt": "ab", "chosen": "cd", "rejected": "e"},
        {"prompt": "a", "chosen": "b", "rejected": "cdefgh"},
    ]
    data = read_comparisons(written(tmp_path, *rows), BYTES, 64).data
    assert data.chosen.tokens.shape == data.rejected.tokens.shape == (2, 16)
    assert shown(data.chosen) == ("^ab", "cd$") and shown(data.rejected) == ("^ab", "e$")


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("What is it? It is good.", "What is it? It was bad."),
        ("The sky is blue", "The sky is green"),
        ("answer 12", "answer 13"),
        ("ab", "abc"),
        ([user("Q"), assistant("A")], [user("Q"), assistant("B")]),
        ([user("Q"), assistant("A"), user("R"), assistant("C")], [user("Q"), assistant("B")]),
    ],
)
def test_prompts_that_both_begin_with(tmp_path, chosen, rejected):
    row = {"chosen": chosen, "rejected": rejected}
    implicit = read_comparisons(written(tmp_path, row), BYTES, 128).data
    assert shown(implicit.chosen)[0] == shown(implicit.rejected)[0]
    if isinstance(chosen, list):
        assert shown(implicit.rejected) == ("^<|user|>\nQ\n<|assistant|>\n", "B\n$")
        # The same with a prompt in text beside the conversations.
        other = read_comparisons(written(tmp_path, {**row, "prompt": "Q"}), BYTES, 128).data
        np.testing.assert_array_equal(other.chosen.tokens, implicit.chosen.tokens)
    else:
        assert "".join(shown(implicit.chosen)) == f"^{chosen}$"
        assert not shown(implicit.chosen)[0].endswith(" ")
    trl = pytest.importorskip("trl")
    explicit = read_comparisons(written(tmp_path, trl.extract_prompt(row)), BYTES, 128).data
    np.testing.assert_array_equal(explicit.chosen.tokens, implicit.chosen.tokens)
    np.testing.assert_array_equal(explicit.rejected.response, implicit.rejected.response)


def test_prompts(tmp_path):
    read = read_prompts(written(tmp_path, {"prompt": "abc"}, {"prompt": "d"}), BYTES, 16)
    np.testing.assert_array_equal(read.data.length, [4, 2])
    np.testing.assert_array_equal(read.data.tokens, [[256, 97, 98, 99], [256, 100, 258, 258]])
    read = read_prompts(written(tmp_path, {"prompt": [user("Q")]}), BYTES, 64)
    assert BYTES.decode(read.data.tokens[0]) == "<|user|>\nQ\n<|assistant|>\n"


def test_a_text_file_in_windows(tmp_path):
    (tmp_path / "book.txt").write_text("abcdefghij")
    read = read_completions(tmp_path / "book.txt", BYTES, 5)
    texts = [shown(read.data, i) for i in range(3)]
    assert texts == [("^", "abcd"), ("^", "efgh"), ("^", "ij$")]


def test_rows_that_are_too_long(tmp_path):
    rows = [{"prompt": "abcdef", "completion": "gh"}, {"prompt": "a", "completion": "b"}]
    path = written(tmp_path, *rows)
    message = (
        "row 1: a prompt of 7 tokens and a response of 3 do not fit into a context of 8: shorten"
    )
    with pytest.raises(DataError, match=message):
        read_completions(path, BYTES, 8)
    with pytest.raises(DataError, match="a prompt of 7 tokens does not fit into a context of 6"):
        read_completions(path, BYTES, 6)
    dropped = read_completions(path, BYTES, 8, too_long="drop")
    assert (dropped.dropped, dropped.cut) == (1, 0) and shown(dropped.data) == ("^a", "b$")
    assert "of 2 rows, 1 were too long and left out, 0 were cut" in dropped.notes[0]
    cut = read_completions(path, BYTES, 8, too_long="cut_prompt")
    assert cut.cut == 1 and shown(cut.data) == ("^cdef", "gh$")
    cut = read_completions(path, BYTES, 8, too_long="cut_response")
    assert cut.cut == 1 and shown(cut.data) == ("^abcdef", "g")
    with pytest.raises(DataError, match="so that nothing is left of the response"):
        read_completions(path, BYTES, 7, too_long="cut_response")
    with pytest.raises(DataError, match="even without the prompt: cut or drop it"):
        read_completions(path, BYTES, 3, too_long="cut_prompt")
    with pytest.raises(DataError, match="no row fits into 3 tokens"):
        read_completions(path, BYTES, 3, too_long="drop")
    # Both responses keep the same prompt.
    row = {"prompt": "abcdef", "chosen": "ghi", "rejected": "j"}
    data = read_comparisons(written(tmp_path, row), BYTES, 8, too_long="cut_prompt").data
    assert shown(data.chosen) == ("^def", "ghi$") and shown(data.rejected) == ("^def", "j$")


GOOD = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": ""}, "row 2: 'completion' is empty"),
        ({"prompt": "a", "completion": None}, "row 2: 'completion' is missing"),
        ({"prompt": "a", "completion": 3}, "row 2: 'completion' must be a text, not a number"),
        ({"prompt": 3, "completion": "b"}, "row 2: 'prompt' must be a text or a list of messages"),
        (
            {"prompt": [{"content": "a"}], "completion": [assistant("b")]},
            r"row 2: message 1 of 'prompt' has no 'role': say who speaks \(system, developer",
        ),
        (
            {"prompt": [{"role": "usr", "content": "a"}], "completion": [assistant("b")]},
            "row 2: message 1 of 'prompt': unknown role 'usr': did you mean user",
        ),
        (
            {"prompt": [{"role": "user", "content": ["a"]}], "completion": [assistant("b")]},
            "row 2: the 'content' of message 1 of 'prompt' has a part that is not a text",
        ),
        (
            {"prompt": [{"role": "user", "content": 3}], "completion": [assistant("b")]},
            "row 2: the 'content' of message 1 of 'prompt' must be a text",
        ),
        (
            {"prompt": ["a"], "completion": [assistant("b")]},
            "row 2: message 1 of 'prompt' must have a 'role' and a 'content'",
        ),
        ({"prompt": [user("a")], "completion": "b"}, "row 2: 'prompt' and 'completion' must both"),
        ({"prompt": [], "completion": [assistant("b")]}, "row 2: 'prompt' holds no message"),
        ({"prompt": [user("a")], "completion": []}, "row 2: 'completion' is empty"),
        ({"prompt": [user("a")], "completion": [assistant(" ")]}, "row 2: 'completion' is empty"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, row, message):
    path = written(tmp_path, GOOD, row)
    with pytest.raises(DataError, match=message) as raised:
        read_completions(path, BYTES, 64)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("reward", ["NaN", '"high"', "null", "true", "Infinity"])
def test_rewards_that_are_no_numbers(tmp_path, reward):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"prompt": "a", "completion": "b", "reward": {reward}}}\n')
    with pytest.raises(DataError, match="row 1: 'reward' must be a finite number, not"):
        read_completions(path, BYTES, 64)


def test_comparisons_that_cannot_be_used(tmp_path):
    for row, message in (
        ({"chosen": "same", "rejected": "same"}, "row 1: 'chosen' and 'rejected' are the same"),
        ({"chosen": "ab", "rejected": [user("a")]}, "row 1: 'chosen' and 'rejected' must both be"),
        ({"chosen": [user("a")], "rejected": [user("b")]}, "have no first message in common"),
        ({"chosen": "", "rejected": "abc"}, "row 1: 'chosen' is empty"),
        ({"chosen": [assistant("a")], "rejekted": []}, "no column 'rejected'.*mean rejekted"),
    ):
        with pytest.raises(DataError, match=message):
            read_comparisons(written(tmp_path, row), BYTES, 64)


def test_labels(tmp_path):
    rows = [
        {"prompt": "abcde", "completion": "f", "label": True},
        {"prompt": "a", "completion": "bcdefg", "label": False},
    ]
    read = read_labelled(written(tmp_path, *rows), BYTES, 64)
    assert shown(read.data.completions) == ("^abcde", "f$")
    assert shown(read.data.completions, 1) == ("^a", "bcdefg$")
    np.testing.assert_array_equal(read.data.desirable, [True, False])
    assert (read.rows, read.tokens) == (2, 8 + 9)
    # The longer response fits behind the longer prompt: 6 and 7 tokens, as far as there is room.
    assert read.data.completions.tokens.shape == (2, 16)
    assert read_labelled(tmp_path / "data.jsonl", BYTES, 10).data.completions.tokens.shape[1] == 10
    path = tmp_path / "data.csv"
    path.write_text("prompt,completion,label\na,b,True\na,c,false\na,d,1\n")
    np.testing.assert_array_equal(read_labelled(path, BYTES, 64).data.desirable, [1, 0, 1])
    path.write_text('[{"prompt": "a", "completion": "b", "label": 1.0}]')
    path = path.rename(tmp_path / "data.json")
    assert read_labelled(path, BYTES, 64).data.desirable.tolist() == [True]
    chat = {"prompt": [user("Q")], "completion": [assistant("A")], "liked": False}
    data = read_labelled(written(tmp_path, chat), BYTES, 64, columns={"label": "liked"}).data
    assert shown(data.completions) == ("^<|user|>\nQ\n<|assistant|>\n", "A\n$")
    assert not data.desirable[0]


def test_comparisons_are_two_labels_each(tmp_path):
    pairs = [{"prompt": "a", "chosen": "bcd", "rejected": "e"}, {"chosen": "xy", "rejected": "xz"}]
    read = read_labelled(written(tmp_path, *pairs), BYTES, 64)
    texts = [shown(read.data.completions, i) for i in range(4)]
    assert texts == [("^a", "bcd$"), ("^a", "e$"), ("^x", "y$"), ("^x", "z$")]
    np.testing.assert_array_equal(read.data.desirable, [True, False, True, False])
    # Both rows of a pair are dropped, or none.
    data = read_labelled(tmp_path / "data.jsonl", BYTES, 5, too_long="drop")
    assert data.dropped == 1 and len(data.data.desirable) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b", "label": "good"}, "row 1: 'label' must be true .*good"),
        ({"prompt": "a", "completion": "b", "label": 0.5}, "'label' must be true .*, not 0.5"),
        ({"prompt": "a", "completion": "b", "label": 2}, "'label' must be true .*, not 2"),
        ({"prompt": "a", "completion": "b", "label": None}, "row 1: 'label' is missing: fill it"),
        ({"prompt": "a", "completion": "b"}, "need 'prompt', 'completion' and 'label'.*'label'"),
        (
            {"prompt": "a", "completion": "b", "lable": True},
            r"no column 'label' \(did you mean lab",
        ),
        ({"messages": [user("a")], "label": True}, "there is no column 'completion'"),
        ({"completion": "b", "label": True}, "there is no column 'prompt'"),
        ({"prompt": "a", "completion": " ", "label": True}, "row 1: 'completion' is empty"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_labelled(written(tmp_path, row), BYTES, 64)


def test_files_that_cannot_be_used(tmp_path):
    path = written(tmp_path, {"promt": "a", "completion": "b"})
    with pytest.raises(DataError, match=r"no column 'prompt' \(did you mean promt\?\): rename"):
        read_completions(path, BYTES, 64)
    with pytest.raises(DataError, match="prompts are needed, and there is no column 'prompt'"):
        read_prompts(path, BYTES, 64)
    with pytest.raises(DataError, match="unknown column 'prmt': did you mean promt"):
        read_completions(path, BYTES, 64, columns={"prompt": "prmt"})
    with pytest.raises(DataError, match="unknown column of texts 'promt': did you mean prompt"):
        read_completions(path, BYTES, 64, columns={"promt": "promt"})
    path.write_text('{"prompt": "a"\n')
    with pytest.raises(DataError, match="row 1: this line is no JSON object"):
        read_prompts(path, BYTES, 64)
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="row 1: a row must be a JSON object"):
        read_prompts(path, BYTES, 64)
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DataError, match="it is not UTF-8"):
        read_prompts(path, BYTES, 64)
    path.write_text("\n")
    with pytest.raises(DataError, match="there are no rows in it"):
        read_prompts(path, BYTES, 64)
    with pytest.raises(DataError, match="there is no such file"):
        read_prompts(tmp_path / "other.jsonl", BYTES, 64)
    table = written(tmp_path, GOOD, name="data.parquet")
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(DataError, match="truncated or corrupt"):
        read_prompts(table, BYTES, 64)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="there is no text in it"):
        read_completions(tmp_path / "empty.txt", BYTES, 64)


def test_only_what_a_template_marks_as_answers_is_response(tmp_path):
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    BYTES.write(tmp_path)
    # Earlier answers lose what they thought, so that no prefix of the conversation stays the same.
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}a:{% generation %}"
        "{{ m.content if loop.last else m.content.split('>')[-1] }};{% endgeneration %}"
        "{% else %}u:{{ m.content }}|{% endif %}{% endfor %}"
    )
    tokenizer = FileTokenizer(tmp_path)
    path = written(
        tmp_path, {"messages": [user("Q"), assistant("x>A"), user("R"), assistant("y>B")]}
    )
    data = read_completions(path, tokenizer, 64, only_answers=True).data
    # What a template leaves out is not put in, as in what TRL prepares: no beginning, no end.
    assert shown(data) == ("u:Q|a:u:R|a:", "A;y>B;")


def test_a_conversation_is_what_its_template_makes_of_it(tmp_path):
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    BYTES.write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role[0] }}:{{ m.reasoning_content or '' }}{{ m.content }}/"
        "{{ mood or '' }}{{ m.name is defined }}\n{% endfor %}{% if add_generation_prompt %}"
        "a:{% endif %}"
    )
    tokenizer = FileTokenizer(tmp_path)
    pair = {"prompt": [user("Q")], "completion": [assistant("A")]}
    read = read_completions(written(tmp_path, pair), tokenizer, 64)
    assert shown(read.data) == ("u:Q/False\na:", "A/False\n")
    # Nothing says where to stop, so that the user has to know.
    (note,) = read.notes
    assert "ends 1 conversations with no token that ends a text" in note
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [257, ord("\n")]}))
    ending = FileTokenizer(tmp_path)
    assert read_completions(written(tmp_path, pair), ending, 64).notes == []
    # As transformers has it: null is no field, and thoughts have three names.
    thought = {**assistant("A"), "reasoning": "hm,", "name": None}
    path = written(tmp_path, {"messages": [user("Q"), thought]})
    whole = read_completions(path, tokenizer, 64).data
    assert shown(whole) == ("u", ":Q/False\na:hm,A/False\n")
    path = written(tmp_path, {**pair, "chat_template_kwargs": {"mood": "glad"}})
    told = read_completions(path, tokenizer, 64).data
    assert shown(told) == ("u:Q/gladFalse\na:", "A/gladFalse\n")
    with pytest.raises(DataError, match="no chat template to be told 'mood'"):
        read_completions(path, BYTES, 64)
    path = written(tmp_path, {**pair, "chat_template_kwargs": "glad"})
    with pytest.raises(DataError, match="'chat_template_kwargs' must be an object, not a text"):
        read_completions(path, tokenizer, 64)
    # A prompt that the assistant spoke last in is answered all the same, as in TRL.
    path = written(tmp_path, {"prompt": [user("Q"), assistant("A")]})
    prompts = read_prompts(path, tokenizer, 64).data
    assert bytes(prompts.tokens[0, : int(prompts.length[0])].tolist()) == (
        b"u:Q/False\na:A/False\na:"
    )
    parts = [{"type": "text", "text": "Q"}]
    path = written(tmp_path, {"prompt": [user(parts)], "completion": [assistant("A")]})
    assert shown(read_completions(path, tokenizer, 64).data) == ("u:Q/False\na:", "A/False\n")


def test_columns_are_those_that_were_named(tmp_path):
    # One that is called like a role stays out of the way.
    row = {"question": "a", "prompt": "no", "completion": "b"}
    path = written(tmp_path, row)
    data = read_completions(path, BYTES, 64, columns={"prompt": "question"}).data
    assert shown(data) == ("^a", "b$")
    twice = {"prompt": "question", "completion": "question"}
    with pytest.raises(DataError, match="one column cannot hold two things: name each once"):
        read_completions(path, BYTES, 64, columns=twice)
    (tmp_path / "twice.csv").write_text("prompt,prompt,completion\na,b,c\n")
    with pytest.raises(DataError, match="there are two columns 'prompt': rename one of them"):
        read_completions(tmp_path / "twice.csv", BYTES, 64)
    with pytest.raises(DataError, match="this is a directory: name the file in it"):
        read_completions(tmp_path, BYTES, 64)
    path = written(tmp_path, GOOD, {"text": "a"})
    with pytest.raises(DataError, match="row 2: 'prompt' is missing: fill it, or remove the row"):
        read_completions(path, BYTES, 64)
    path = written(tmp_path, {"messages": "hello"})
    with pytest.raises(DataError, match="'messages' must be a list of messages, not a text"):
        read_completions(path, BYTES, 64)
    (tmp_path / "one.json").write_text(json.dumps({"data": [GOOD]}, indent=1))
    with pytest.raises(DataError, match="other JSON must be one array of such rows"):
        read_completions(tmp_path / "one.json", BYTES, 64)


def test_rows_that_were_dropped_are_counted_for_the_user(tmp_path):
    rows = [{"prompt": "a", "completion": "b" * n} for n in (1, 2, 99)]
    path = written(tmp_path, *rows)
    read = read_completions(path, BYTES, 16, too_long="drop")
    assert read.notes == ["of 3 rows, 1 were too long and left out, 0 were cut"]


def test_dialects_of_rows_are_the_same_rows(tmp_path):
    rows = [{"prompt": "ab", "completion": "c"}, {"prompt": "a", "completion": "de"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    texts = {
        "a.jsonl": lines.encode(),
        "b.jsonl": b"\xef\xbb\xbf" + lines.encode(),
        "c.json": json.dumps(rows, indent=1).encode(),
        "d.jsonl.gz": gzip.compress(lines.encode()),
        "e.csv": b"prompt,completion\r\nab,c\r\na,de\r\n",
        "f.tsv": b"prompt\tcompletion\nab\tc\na\tde\n",
        "g.TSV.GZ": gzip.compress(b"prompt\tcompletion\nab\tc\na\tde\n"),
    }
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
        data = read_completions(tmp_path / name, BYTES, 64).data
        assert [shown(data, i) for i in (0, 1)] == [("^ab", "c$"), ("^a", "de$")], name


def test_dialects_of_conversations_are_the_same_conversations(tmp_path):
    plain = [user("Hi"), assistant("Yo")]
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in plain]
    spoken = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    expected = read_completions(written(tmp_path, {"messages": plain}), BYTES, 64).data
    for row in ({"messages": parts}, {"conversations": spoken}):
        data = read_completions(written(tmp_path, row), BYTES, 64).data
        np.testing.assert_array_equal(data.tokens, expected.tokens)
        np.testing.assert_array_equal(data.response, expected.response)


REFUSED = {
    "tools": ({"messages": [user("a"), assistant("b")], "tools": [{"name": "w"}]}, "holds tools"),
    "calls": (
        {"messages": [user("a"), {**assistant(""), "tool_calls": [{"id": 1}]}]},
        "message 2 of 'messages' calls tools, which is not learned from yet",
    ),
    "image": ({"messages": [user([{"type": "image"}]), assistant("b")]}, "a part that is not a"),
    "pictures": ({"prompt": "a", "completion": "b", "images": ["a.png"]}, "holds pictures"),
    "reward": ({"prompt": "a", "completion": "b", "reward": 10**400}, "must be a finite number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused(tmp_path, name):
    row, reason = REFUSED[name]
    with pytest.raises(DataError, match="row 1: .*" + reason):
        read_completions(written(tmp_path, row), BYTES, 64)


def test_pairs_that_say_nothing_are_refused(tmp_path):
    same = {"prompt": "a", "chosen": "b", "rejected": "b"}
    with pytest.raises(DataError, match="row 1: 'chosen' and 'rejected' are the same"):
        read_comparisons(written(tmp_path, same), BYTES, 64)
    margin = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2.0}
    with pytest.raises(DataError, match="row 1: the column 'margin' holds margins of preferences"):
        read_comparisons(written(tmp_path, margin), BYTES, 64)


def test_damaged_rows_are_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "prompt": "b"}\n')
    with pytest.raises(DataError, match=r"row 2: .*the key 'prompt' stands there twice"):
        read_completions(path, BYTES, 64)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 50)[:-12])
    with pytest.raises(DataError, match="it is not whole"):
        read_completions(tmp_path / "cut.jsonl.gz", BYTES, 64)
    (tmp_path / "short.csv").write_text("prompt,completion\na\n")
    with pytest.raises(DataError, match="row 1: it does not have 2 values"):
        read_completions(tmp_path / "short.csv", BYTES, 64)
    (tmp_path / "number.json").write_text("[1]")
    with pytest.raises(DataError, match="row 1: a row must be a JSON object"):
        read_completions(tmp_path / "number.json", BYTES, 64)
