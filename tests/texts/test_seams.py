"""Prompt and response are cut into tokens as one text, as TRL's trainers do it.

The rule of TRL's: `prompt + response` is tokenised as a whole, with the end as text behind it, and
as many tokens as the prompt alone has are prompt. It is computed here with the library `tokenizers`
itself. Where a token reaches over the seam, so that the whole does not begin with the tokens of the
prompt (TRL warns there), the token is response.
"""

import json
import string

import numpy as np
import pytest

from headwater.texts.texts import read_comparisons, read_completions
from headwater.texts.tokenizers import FileTokenizer

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

WORDS = ("Hello", "world", "a", "b")


def _pieces(space: str, letters: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary that holds `WORDS` with and without a space before them, and its merges."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for letter in [space, *letters]:
        vocabulary.setdefault(letter, len(vocabulary))
    merges = []
    for word in WORDS:
        for start in (word, space + word):
            so_far = start[0]
            for letter in start[1:]:
                if (so_far, letter) not in merges:
                    merges.append((so_far, letter))
                so_far += letter
                vocabulary.setdefault(so_far, len(vocabulary))
    return vocabulary, merges


LETTERS = string.ascii_letters + ".,:?!\n"


def byte_level() -> Tokenizer:
    """As of GPT-2 and Llama-3: a space belongs to the word behind it."""
    vocabulary, merges = _pieces("Ġ", string.ascii_letters + ".,:?!Ċ")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace() -> Tokenizer:
    """As of newer SentencePiece conversions: only the first word of a text gains a space."""
    vocabulary, merges = _pieces("▁", LETTERS)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def llama_2() -> Tokenizer:
    """As of Llama 2 and Mistral: the normaliser puts a space before whatever it is given."""
    vocabulary, merges = _pieces("▁", LETTERS)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def gemma() -> Tokenizer:
    """As of Gemma: a space is a token, and alone behind the last word."""
    tokenizer = metaspace()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    return tokenizer


def normalised() -> Tokenizer:
    """As of older SentencePiece models: several spaces are one, and none is at the end."""
    tokenizer = metaspace()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(left=False), normalizers.Replace(Regex(" +"), " ")]
    )
    return tokenizer


def words() -> Tokenizer:
    """Whole words alone, of which most are unknown."""
    vocabulary = {word: i for i, word in enumerate(("<unk>", "<s>", "</s>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.fixture(
    params=[byte_level, metaspace, llama_2, gemma, normalised, words],
    ids=lambda make: make.__name__,
)
def both(request, tmp_path):
    """The library's tokenizer, and ours from the file that it writes."""
    inner = request.param()
    inner.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>")])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    inner.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return inner, FileTokenizer(tmp_path)


def as_trl_has_it(inner: Tokenizer, prompt: str, response: str) -> tuple[list[int], list[bool]]:
    alone = inner.encode(prompt).ids
    whole = inner.encode(prompt + response + "</s>").ids
    same = 0
    while same < min(len(alone), len(whole)) and alone[same] == whole[same]:
        same += 1
    return whole, [i >= same for i in range(len(whole))]


def row(data, at: int = 0) -> tuple[list[int], list[bool]]:
    tokens, response = np.asarray(data.tokens[at]), np.asarray(data.response[at])
    length = int(np.flatnonzero(response)[-1]) + 1
    return tokens[:length].tolist(), response[:length].tolist()


SEAMS = [
    ("Hello", " world"),
    ("Hello ", "world"),
    ("Hello", "world"),
    ("Hello a:\n", "b b"),
    ("Hello a:\n", " b b"),
    ("a", "b"),
    ("Hello world.", " Hello!"),
    ("Hello  ", "  world"),
    ("Hello\n", "\nworld"),
    ("Hello", "b <mask> "),
]


@pytest.mark.parametrize(("prompt", "response"), SEAMS)
def test_rows_are_those_of_trl(both, tmp_path, prompt, response):
    inner, tokenizer = both
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "completion": response}))
    expected = as_trl_has_it(inner, prompt, response)
    assert row(read_completions(path, tokenizer, 64).data) == expected
    # Learning the text means learning what the tokenizer makes of it, and nothing else.
    assert expected[0] == [*inner.encode(prompt + response).ids, 2]


@pytest.mark.parametrize(("prompt", "response"), SEAMS)
def test_pairs_are_those_of_trl(both, tmp_path, prompt, response):
    inner, tokenizer = both
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "chosen": response, "rejected": response + "!"}))
    data = read_comparisons(path, tokenizer, 64).data
    assert row(data.chosen) == as_trl_has_it(inner, prompt, response)
    assert row(data.rejected) == as_trl_has_it(inner, prompt, response + "!")


def test_pairs_begin_where_the_first_of_both_does(tmp_path):
    inner = byte_level()
    inner.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "b Hel", "chosen": "lo", "rejected": "!"}))
    data = read_comparisons(path, FileTokenizer(tmp_path), 64).data
    # "lo" makes one token with what is before it, so that "Hel" is in neither prompt.
    hel, hello = (inner.encode(text).ids for text in ("b Hel!", "b Hello"))
    assert row(data.chosen) == (hello, [False, False, True])
    assert row(data.rejected) == (hel, [False, False, True, True])


def test_an_end_may_swallow_the_space_before_it(tmp_path):
    inner = byte_level()
    inner.add_special_tokens([AddedToken("</s>", special=True, lstrip=True)])
    inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Hello", "completion": " world  "}))
    tokens = row(read_completions(path, FileTokenizer(tmp_path), 64).data)[0]
    assert tokens == inner.encode("Hello world  </s>").ids == [*inner.encode("Hello world").ids, 2]


def test_cutting_apart_would_be_noticed(tmp_path):
    inner = llama_2()
    apart = inner.encode("Hello", add_special_tokens=False).ids
    apart += inner.encode("world", add_special_tokens=False).ids
    assert apart != inner.encode("Helloworld", add_special_tokens=False).ids


def test_a_response_is_read_in_its_context(both):
    inner, tokenizer = both
    for prompt, response in SEAMS:
        alone = tokenizer.encode(prompt)
        whole = tokenizer.encode(prompt + response)
        # Some tokenizers lose a part of the text.
        kept = tokenizer.decode(whole) == prompt + response and tokenizer.decode(alone) == prompt
        if whole[: len(alone)] != alone or not kept:
            continue
        assert tokenizer.decode_after(alone, whole[len(alone) :]) == response
    # Which is more than what the tokens say by themselves.
    alone, whole = tokenizer.encode("Hello"), tokenizer.encode("Hello world")
    by_itself = tokenizer.decode(whole[len(alone) :])
    keeps = inner.decoder.__class__.__name__ in ("ByteLevel", "Replace")
    assert by_itself == (" world" if keeps else "world")


def test_what_follows_a_mark_begins_anew(tmp_path):
    inner = llama_2()
    inner.add_special_tokens([AddedToken("<a>", special=True, rstrip=True)])
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = FileTokenizer(tmp_path)
    prompt, whole = (tokenizer.encode(text) for text in ("Hello<a>", "Hello<a>\nworld"))
    assert tokenizer.decode_after(prompt, whole[len(prompt) :]) == "world"
