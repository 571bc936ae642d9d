"""Language models from directory to directory: trained, continued, sampled and judged."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from headwater.api.language import train as language
from headwater.api.language.grow import GrowthSettings, grow_language
from headwater.api.language.judge import evaluate_language
from headwater.api.language.train import (
    LanguageSettings,
    load_language_model,
    load_reward,
    train_language,
)
from headwater.api.language.write import generate_texts
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.networks.decoder import Architecture, Decoder
from headwater.networks.hugging_face import read_decoder, write_decoder
from headwater.runs import checkpoint
from headwater.texts.tokenizers import ByteTokenizer


def rows(path, found) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with a fresh model, and files of texts."""
    folder = tmp_path_factory.mktemp("language")
    architecture = Architecture(264, 32, width=16, layers=2, heads=2, hidden=32, tied=True)
    write_decoder(Decoder(architecture, key=jax.random.key(0)), folder / "model", end=257)
    ByteTokenizer().write(folder / "model")
    rows(folder / "sums.jsonl", [{"prompt": f"{a}+", "completion": f"{a}"} for a in range(8)])
    pairs = [{"prompt": f"{a}?", "chosen": "yes", "rejected": "no"} for a in range(8)]
    rows(folder / "pairs.jsonl", pairs)
    judged = [{"prompt": f"{a}+", "completion": c, "reward": float(c == f"{a}")}
              for a in range(8) for c in (f"{a}", "no")]  # fmt: skip
    rows(folder / "judged.jsonl", judged)
    (folder / "book.txt").write_text("the cat sat on the mat. " * 30, encoding="utf-8")
    return folder


def asked(folder, method: str, data: str, **others) -> LanguageSettings:
    settings = {"updates": 4, "rows": 4, "samples": 4, "new_tokens": 3, **others}
    rates = settings.pop("hyper_parameters", {"learning_rate": 1e-2})
    model = settings.pop("model", str(folder / "model"))
    return LanguageSettings(method, rates, model, str(folder / data), **settings)


@pytest.fixture(scope="module")
def fine_tuned(folder):
    return train_language(
        asked(folder, "SFT", "sums.jsonl", updates=60), folder / "sft", progress=False
    )


def test_fine_tuning_learns_and_leaves_a_model(folder, fine_tuned):
    before = evaluate_language(load_language_model(folder / "model"), folder / "sums.jsonl",
                               new_tokens=3, greedy=True)  # fmt: skip
    learned = load_language_model(fine_tuned.model)
    after = evaluate_language(learned, folder / "sums.jsonl", new_tokens=3, greedy=True)
    assert before["loss"].point == pytest.approx(math.log(264), abs=0.1)
    assert after["loss"].point < 0.5 * before["loss"].point
    assert before["exact match"].point == 0.0
    assert fine_tuned.metrics["loss"] < 3.0 and fine_tuned.tokens_per_second > 0
    assert learned.tokenizer.end == 257 and learned.decoder.embedding.dtype == np.float32


def test_the_same_command_continues_and_another_is_refused(folder, fine_tuned, monkeypatch):
    settings = asked(folder, "SFT", "sums.jsonl", updates=60)
    again = train_language(settings, folder / "sft", progress=False)
    first, second = read_decoder(fine_tuned.model), read_decoder(again.model)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))
    with pytest.raises(RunError, match="updates is 60, not 61"):
        train_language(dataclasses.replace(settings, updates=61), folder / "sft")

    # Stopped after the first checkpoint, it comes to the same weights.
    class Stopped(Exception):
        pass

    plain, saved = checkpoint.save, []

    def save(*arguments, **options):
        path = plain(*arguments, **options)
        saved.append(path)
        raise Stopped

    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Stopped):
        train_language(settings, folder / "stopped", progress=False)
    assert saved and not (folder / "stopped" / "model").exists()
    monkeypatch.setattr(checkpoint, "save", plain)
    resumed = read_decoder(train_language(settings, folder / "stopped", progress=False).model)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, resumed)))


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("HyPO", "pairs.jsonl"),
        ("GRPO", "sums.jsonl"),
        ("DRPO", "sums.jsonl"),
        ("INPO", "sums.jsonl"),
        ("RLHFSharpening", "sums.jsonl"),
        ("ALoL", "judged.jsonl"),
    ],
)
def test_methods_are_fed_what_they_learn_from(folder, fine_tuned, method, data):
    # It has to be right now and then for rewards to say anything.
    settings = asked(folder, method, data, model=str(fine_tuned.model), temperature=0.8)
    done = train_language(settings, folder / method.lower(), progress=False)
    # Whoever writes and whoever learns agree, at this temperature too.
    assert done.metrics.get("sampler_gap", 0.0) < 1e-4
    start, end = read_decoder(fine_tuned.model), read_decoder(done.model)
    assert not np.array_equal(start.embedding, end.embedding)
    assert all(math.isfinite(value) for value in done.metrics.values())


def test_adapters_leave_the_rest_and_are_merged(folder):
    settings = asked(folder, "DPO", "pairs.jsonl", updates=20, rank=2)
    done = train_language(settings, folder / "adapted", progress=False)
    start, end = read_decoder(folder / "model"), read_decoder(done.model)
    assert np.array_equal(start.embedding, end.embedding)
    assert np.array_equal(start.blocks.down.weight, end.blocks.down.weight)
    assert not np.array_equal(start.blocks.query.weight, end.blocks.query.weight)
    better = evaluate_language(
        load_language_model(done.model), folder / "pairs.jsonl",
        against=load_language_model(folder / "model"),
    )  # fmt: skip
    assert better["accuracy"].point > 0.9


def test_a_learned_reward_judges(folder):
    settings = asked(folder, "RewardModel", "pairs.jsonl", updates=20)
    done = train_language(settings, folder / "reward", progress=False)
    assert not done.model.exists() and done.metrics["accuracy"] == 1.0
    reward = load_reward(folder / "reward", 264)
    found = evaluate_language(
        load_language_model(folder / "model"), folder / "sums.jsonl", reward=folder / "reward",
        new_tokens=3, against=load_language_model(folder / "model"),
    )  # fmt: skip
    assert found["win rate"].point == 0.5 and math.isfinite(found["reward"].point)
    learner = asked(folder, "RLOO", "sums.jsonl", reward=str(folder / "reward"))
    done = train_language(learner, folder / "rloo", progress=False)
    assert math.isfinite(done.metrics["reward"])
    assert reward.state.step == 20
    for method in ("INPO", "ALoL"):
        settings = asked(folder, method, "sums.jsonl", reward=str(folder / "reward"))
        judged = train_language(settings, folder / f"{method}-judged", progress=False)
        assert all(math.isfinite(value) for value in judged.metrics.values())
    with pytest.raises(DataError, match="264 tokens are not the policy's 300"):
        load_reward(folder / "reward", 300)
    with pytest.raises(RunError, match="no run of RewardModel"):
        load_reward(folder / "rloo")


def test_what_is_better_than_expected_is_imitated(folder):
    settings = asked(folder, "ALoL", "judged.jsonl", updates=60)
    done = train_language(settings, folder / "leftovers", progress=False)
    model = load_language_model(done.model)
    before, after = (
        evaluate_language(load_language_model(where), folder / "sums.jsonl", new_tokens=3)["loss"]
        for where in (folder / "model", done.model)
    )
    assert after.point < before.point - 1.0
    assert model.tokenizer.end == 257


def test_tokens_are_counted_by_what_is_drawn(folder):
    """One row of plain text is many windows."""
    model = load_language_model(folder / "model")
    settings = asked(folder, "SFT", "book.txt", rows=4)
    assert 0.5 * 4 * 32 < language._source(settings, model)[1] <= 4 * 32


def test_growing_from_a_text(folder):
    settings = GrowthSettings(
        str(folder / "book.txt"), layers=2, stages=2, width=16, heads=2, context=24, updates=40,
        rows=4, learning_rate=1e-2,
    )  # fmt: skip
    done = grow_language(settings, folder / "grown", progress=False)
    model = load_language_model(done.model)
    assert model.decoder.layer_count == 2 and done.metrics["loss"] < 3.0
    other = dataclasses.replace(settings, operator="raptr", updates=4)
    assert load_language_model(grow_language(other, folder / "parts", progress=False).model)
    with pytest.raises(RunError, match="other settings"):
        grow_language(dataclasses.replace(settings, width=32), folder / "grown")


def test_what_is_written_can_be_asked_for_again(folder):
    model = load_language_model(folder / "model")
    found = generate_texts(model, ["ab", "c"], new_tokens=4, samples=3, seed=1)
    assert [len(each) for each in found] == [3, 3]
    assert found == generate_texts(model, ["ab", "c"], new_tokens=4, samples=3, seed=1)
    greedy = generate_texts(model, ["ab"], new_tokens=4, samples=2, greedy=True)[0]
    assert greedy[0] == greedy[1] and greedy[0]["log_probability"] < 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "no prompt to answer"),
        ({"prompts": ["x" * 40]}, "do not fit into the model's context of 32"),
        ({"prompts": ["x"], "temperature": 0.0}, "above zero"),
        ({"prompts": ["x"], "top_p": 1.5}, "top-p = 1.5"),
        ({"prompts": ["x"], "top_k": 0}, "top-k = 0"),
    ],
)
def test_what_cannot_be_written_is_said(folder, options, message):
    model = load_language_model(folder / "model")
    with pytest.raises(SpecificationError, match=message):
        generate_texts(model, options.pop("prompts"), new_tokens=4, **options)


@pytest.mark.parametrize(
    ("method", "data", "others", "message"),
    [
        ("IQL", "sums.jsonl", {}, "IQL is no method for language models"),
        ("ALoL", "sums.jsonl", {}, "ALoL learns from rewards: give a column reward"),
        ("RLHFSharpening", "sums.jsonl", {"samples": 1}, "at least 2 are needed"),
        ("SFTT", "sums.jsonl", {}, "did you mean"),
        ("SFT", "pairs.jsonl", {}, "completions need 'prompt' and 'completion'"),
        ("DPO", "sums.jsonl", {}, "comparisons need 'chosen' and 'rejected'"),
        ("GRPO", "book.txt", {}, "no prompt may be empty"),
        ("GRPO", "sums.jsonl", {"new_tokens": 30}, "must fit into a context of 32"),
        ("GRPO", "sums.jsonl", {"reward": "nowhere"}, "is no run"),
        ("SFT", "sums.jsonl", {"updates": 0}, "at least 1"),
        ("GRPO", "sums.jsonl", {"hyper_parameters": {"temperature": 0.7}}, "give the temperature"),
        ("GRPO", "sums.jsonl", {"hyper_parameters": {"temperature": "hot"}}, "not of type float"),
        ("SFT", "sums.jsonl", {"hyper_parameters": {"lr": "1"}}, "unknown hyper-parameter 'lr'"),
    ],
)
def test_what_cannot_be_trained_is_said(folder, tmp_path, method, data, others, message):
    with pytest.raises((SpecificationError, DataError, RunError), match=message):
        train_language(asked(folder, method, data, **others), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_does_not_fit_is_said(folder, tmp_path):
    architecture = Architecture(200, 32, width=8, layers=1, heads=1, hidden=8)
    write_decoder(Decoder(architecture, key=jax.random.key(0)), tmp_path / "small")
    with pytest.raises(DataError, match=r"small: the tokenizer has 259 tokens but .* only 200"):
        load_language_model(tmp_path / "small")
