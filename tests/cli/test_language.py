"""Language models from the command line: grown, fine-tuned, sampled and judged."""

import json

import pytest

from .asking import ask, done

SMALL = ("--layers", 2, "--stages", 2, "--width", 16, "--heads", 2, "--context", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with texts, and a model that was grown on one of them."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "book.txt").write_text("the cat sat on the mat. " * 20, encoding="utf-8")
    rows = [{"prompt": f"{a}+", "completion": str(a)} for a in range(6)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sums.jsonl").write_text(text, encoding="utf-8")
    grow = ("language", "grow", folder / "book.txt", *SMALL, "--updates", 8, "--rows", 4)
    answer = json.loads(done(*grow, "-o", folder / "grown", "--json"))
    assert answer["metrics"]["loss"] > 0 and answer["tokens_per_second"] > 0
    return folder


def test_from_a_text_to_a_judgement(folder):
    model = folder / "grown" / "model"
    train = ("train", "SFT", "-m", model, "-d", folder / "sums.jsonl")
    printed = done(*train, "-o", folder / "sft", "--updates", 4, "--batch-size", 4)
    assert "tokens a second" in printed and f"model: {folder / 'sft' / 'model'}" in printed
    learned = folder / "sft" / "model"
    judged = done("language", "evaluate", learned, "-d", folder / "sums.jsonl", "--new-tokens", 3)
    assert "loss" in judged and "exact match" in judged
    written = json.loads(
        done("language", "generate", learned, "-p", "1+", "--samples", 2, "--new-tokens", 3,
             "--json")
    )  # fmt: skip
    assert written[0]["prompt"] == "1+" and len(written[0]["samples"]) == 2


def test_what_a_user_says_is_answered(folder):
    generate = ("language", "generate", folder / "grown" / "model", "--new-tokens", 3, "--greedy")
    # There is no template of its own, so that the plain form is what is gone on with.
    form = "<|user|>\nQ\n<|assistant|>\n"
    assert form + done(*generate, "-p", "Q", "--chat") == done(*generate, "-p", form)
    answer = ask(*generate, "-p", "Q", "--system", "S")
    assert answer.status == 1 and "before a conversation: give --chat too" in answer.err
    answer = ask(*generate, "-p", "Q", "--system", "S", "--chat")
    assert "do not fit into the model's context of 32" in answer.err


def test_a_model_with_experts_is_said_to_be_in_its_run(folder):
    train = ("train", "Switch", "-m", folder / "grown" / "model", "-d", folder / "sums.jsonl")
    printed = done(*train, "-o", folder / "experts", "--set", "num_experts=2", "--updates", 1)
    assert "the model is in the run alone" in printed and "reward model" not in printed


def test_what_cannot_be_done_is_one_sentence(folder):
    model, data = folder / "grown" / "model", folder / "sums.jsonl"
    for arguments, reason in (
        (
            ("train", "SFT", "-m", folder / "nowhere", "-d", data),
            "there is no such directory with a model",
        ),
        (("train", "SFTX", "-m", model, "-d", data), "unknown method 'SFTX': did you mean SFT, "),
        (("train", "DPO", "-m", model, "-d", data), "comparisons need 'chosen' and 'rejected'"),
        (
            ("language", "generate", model, "-p", "x" * 50),
            "do not fit into the model's context of 32",
        ),
    ):
        answer = ask(*arguments)
        assert answer.status == 1 and answer.err.count("\n") == 1, answer.err
        assert answer.err.startswith("error: ") and reason in answer.err


def test_counterfactual_texts_are_written_and_counted(tmp_path):
    source, target = tmp_path / "texts.jsonl", tmp_path / "both.jsonl"
    source.write_text('{"text": "He is."}\n{"text": "It is."}\n', encoding="utf-8")
    asked = ("language", "counterfactuals", source, target, "--swap", "he=she", "him=her")
    assert done(*asked) == f"{target}: 2 rows and 1 counterfactual ones\n"
    assert len(target.read_text(encoding="utf-8").splitlines()) == 3
    found = json.loads(done(*asked, "--overwrite", "--json"))
    assert found == {"path": str(target), "rows": 2, "counterfactuals": 1}
    answer = ask("language", "counterfactuals", source, target, "--swap", "he")
    assert answer.status == 1 and answer.err.startswith("error: 'he' is no set of words")
