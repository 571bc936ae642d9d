"""Words for groups of people are exchanged: by hand, and as a bijection."""

import json

import numpy as np
import pytest

from headwater.api.language.counterfactuals import write_counterfactuals
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.texts.counterfactuals import WordExchange, with_counterfactuals

PAIRS = WordExchange([("he", "she"), ("his", "hers"), ("an actor", "an actress")])


def exchanged(text, exchange=PAIRS, seed=0):
    return exchange.exchanged(text, exchange.turns(np.random.default_rng(seed)))


@pytest.mark.oracle
def test_whole_words_are_exchanged_in_their_case():
    text = "He said: HE is an actor; she sees his theatre, the shepherd's, he'd say. A_he."
    right = "She said: SHE is an actress; he sees hers theatre, the shepherd's, she'd say. A_he."
    assert exchanged(text) == right
    assert exchanged(right) == text
    assert exchanged("the he-goat, then") == "the she-goat, then"


@pytest.mark.oracle
def test_several_groups_turn_together():
    exchange = WordExchange([("north", "east", "south"), ("bear", "tiger", "ant")])
    text = "a bear of the north and a tiger of the east"
    found = {exchanged(text, exchange, seed) for seed in range(20)}
    assert found == {
        "a tiger of the east and a ant of the south",
        "a ant of the south and a bear of the north",
    }


@pytest.mark.oracle
def test_rows_are_copied_where_they_name_a_group_in_all_their_columns():
    rows = [
        {"prompt": "Who is he?", "completion": "She knows.", "label": True, "note": "he"},
        {"prompt": "Who?", "completion": "Nobody.", "label": False, "note": "he"},
        {"messages": [{"role": "he", "content": "his"}, {"role": "user", "content": "x"}]},
    ]
    found = list(with_counterfactuals(rows, PAIRS, np.random.default_rng(0)))
    assert [new for _, new in found] == [False, True, False, False, True]
    assert [fields for fields, new in found if not new] == rows
    assert found[1][0] == {
        "prompt": "Who is she?", "completion": "He knows.", "label": True, "note": "he"
    }  # fmt: skip
    said = found[4][0]["messages"]
    assert said == [{"role": "he", "content": "hers"}, {"role": "user", "content": "x"}]
    noted = list(with_counterfactuals(rows, PAIRS, np.random.default_rng(0), columns=("note",)))
    assert [fields.get("note") for fields, _ in noted] == ["he", "she", "he", "she", None, None]


def test_a_file_is_written_whole(tmp_path):
    source, target = tmp_path / "texts.jsonl", tmp_path / "both.jsonl"
    source.write_text('{"text": "He is müde."}\n{"text": "Nobody is."}\n', encoding="utf-8")
    assert write_counterfactuals(source, target, ["he=she"]) == (target, 2, 1)
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == ["He is müde.", "She is müde.", "Nobody is."]
    with pytest.raises(RunError, match="already exists: choose another path"):
        write_counterfactuals(source, target, ["he=she"])
    assert write_counterfactuals(source, target, ["is=was"], overwrite=True).added == 2


def test_what_makes_no_sense_is_refused(tmp_path):
    for sets, reason in (
        ([], "name the words to exchange"),
        ([("he",)], "'he' is no set of words to exchange"),
        ([("he", "")], "give a word for each of two or more groups"),
        ([("he", "she"), ("him", "He")], "'he' is to be exchanged twice, in 'him=he'"),
    ):
        with pytest.raises(SpecificationError, match=reason):
            WordExchange(sets)
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "Nobody is."}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"none of its 1 rows has any of the words .* \(he=she\)"):
        write_counterfactuals(source, tmp_path / "both.jsonl", ["he=she"])
    with pytest.raises(SpecificationError, match="texts are written as JSON Lines"):
        write_counterfactuals(source, tmp_path / "both.csv", ["he=she"])
    with pytest.raises(DataError, match="there is no such file"):
        write_counterfactuals(tmp_path / "no.jsonl", tmp_path / "both.jsonl", ["he=she"])
