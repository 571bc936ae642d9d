"""Language models from directory to directory: trained, continued, sampled and judged."""

import dataclasses
import json
import math
import shutil

import equinox as eqx
import jax
import numpy as np
import pytest

import headwater as hw
from headwater.api.execute import resume
from headwater.api.inputs import load_reward
from headwater.api.language.grow import GrowthSettings, grow_language
from headwater.api.language.judge import evaluate_language
from headwater.api.language.write import generate_texts
from headwater.api.train import train
from headwater.cli.evaluate import command as evaluate_command
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import read_decoder, write_decoder
from headwater.runs import checkpoint, files
from headwater.texts import texts
from headwater.texts.models import LanguageModel, load_language_model
from headwater.texts.texts import read_completions
from headwater.texts.tokenizers import ByteTokenizer

from ..problems import assert_same


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
    labelled = [{"prompt": f"{a}?", "completion": c, "label": c == "yes"}
                for a in range(8) for c in ("yes", "no")]  # fmt: skip
    rows(folder / "labelled.jsonl", labelled)
    judged = [{"prompt": f"{a}+", "completion": c, "reward": float(c == f"{a}")}
              for a in range(8) for c in (f"{a}", "no")]  # fmt: skip
    rows(folder / "judged.jsonl", judged)
    (folder / "book.txt").write_text("the cat sat on the mat. " * 30, encoding="utf-8")
    return folder


def taught(folder, method: str, data: str, out, **others):
    """A run of `method`, trained as asked on a file in `folder`."""
    how = {"updates": 4, "batch_size": 4, **others}
    if method not in ("SFT", "DPO", "KTO", "ORPO", "RewardModel", "ResponseClassifier", "IPO"):
        how = {"samples": 4, "new_tokens": 3, **how}
    rates = how.pop("hyper_parameters", {"learning_rate": 1e-2})
    model = how.pop("model", folder / "model")
    return train(
        hw.build_method(method, rates), folder / data, model=model, out=out, progress=False, **how
    )


def last(run) -> dict[str, float]:
    """The last row of metrics, of the first seed."""
    return {name: values[0] for name, values in run.metrics[-1]["metrics"].items()}


@pytest.fixture(scope="module")
def fine_tuned(folder):
    return taught(folder, "SFT", "sums.jsonl", folder / "sft", updates=60)


def test_fine_tuning_learns_and_leaves_a_model(folder, fine_tuned):
    before = evaluate_language(load_language_model(folder / "model"), folder / "sums.jsonl",
                               new_tokens=3, greedy=True)  # fmt: skip
    learned = load_language_model(fine_tuned.path / "model")
    after = evaluate_language(learned, folder / "sums.jsonl", new_tokens=3, greedy=True)
    assert before["loss"].point == pytest.approx(math.log(264), abs=0.1)
    assert after["loss"].point < 0.5 * before["loss"].point
    assert before["exact match"].point == 0.0
    assert last(fine_tuned)["loss"] < 3.0 and fine_tuned.tokens_per_update > 0
    assert learned.tokenizer.end == 257 and learned.decoder.embedding.dtype == np.float32


def brevity(prompts, completions):
    """A reward of one's own: short answers, and those that repeat the question."""
    return [1.0 / (1 + len(c)) + (p[:1] in c) for p, c in zip(prompts, completions)]


@pytest.mark.parametrize(
    ("method", "data", "others"),
    [
        ("SFT", "sums.jsonl", {"held_out": "0.25"}),
        ("GRPO", "sums.jsonl", {"held_out": "0.25", "reward": brevity}),
        ("DRPO", "sums.jsonl", {"reward": brevity, "min_p": 0.1, "repetition_penalty": 1.2}),
        ("INPO", "sums.jsonl", {"reward": brevity}),
    ],
)
def test_a_stopped_run_goes_on_to_the_bit(folder, tmp_path, monkeypatch, method, data, others):
    how = {"seeds": 2, "evaluations": 4, "updates": 8, **others}
    whole = taught(folder, method, data, tmp_path / "whole", **how)
    plain, saved = checkpoint.save, []

    class Stopped(Exception):
        pass

    def save(*arguments, **options):
        path = plain(*arguments, **options)
        saved.append(path)
        if len(saved) == 2:
            raise Stopped
        return path

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Stopped):
        taught(folder, method, data, tmp_path / "stopped", **how)
    assert not (tmp_path / "stopped" / "model").exists()
    monkeypatch.setattr(checkpoint, "save", plain)
    if "reward" in others:
        with pytest.raises(RunError, match="the reward 'brevity' is Python code"):
            resume(tmp_path / "stopped", progress=False)
    resumed = resume(tmp_path / "stopped", reward=others.get("reward"), progress=False)
    assert_same(whole, resumed)
    assert (tmp_path / "stopped" / "model").is_dir()
    # Two seeds draw differently, and so learn differently.
    first, second = (jax.tree.leaves(eqx.filter(m.decoder, eqx.is_array)) for m in whole.models)
    assert any(not np.array_equal(x, y) for x, y in zip(first, second))


def test_one_model_over_two_devices_is_the_model_of_one(folder, tmp_path):
    """Two virtual ones (see conftest.py). Products of parts may round differently."""
    one = taught(folder, "SFT", "sums.jsonl", tmp_path / "one")
    two = taught(folder, "SFT", "sums.jsonl", tmp_path / "two", parallel="model")
    large = [x for x in jax.tree.leaves(two.state) if x.shape[1:] == (264, 16)]
    assert large and all(x.addressable_shards[0].data.shape == (1, 132, 16) for x in large)
    assert last(two) == pytest.approx(last(one), rel=1e-4)
    for x, y in zip(jax.tree.leaves(one.state), jax.tree.leaves(two.state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_a_model_with_experts_that_cannot_be_written_is_in_its_run(folder, tmp_path, capsys):
    run = hw.train(
        hw.build_method("Switch", {"num_experts": 2}), folder / "sums.jsonl",
        model=folder / "model", out=tmp_path / "run", updates=1, batch_size=4, progress=False,
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "model was not written, since a decoder with 2 experts in each layer cannot" in said
    assert run.finished and not (tmp_path / "run" / "model").exists()
    assert hw.open_run(tmp_path / "run").models[0].decoder.architecture.experts == 2


def test_epochs_are_updates_that_pass_over_what_is_learned_from(folder):
    run = taught(folder, "SFT", "sums.jsonl", None, updates=None, epochs=2.5, held_out="0.25")
    # Six rows in batches of four, two and a half times.
    assert run.specification.options.updates == 4 == run.method.decay_updates
    pairs = taught(folder, "KTO", "pairs.jsonl", None, updates=None, epochs=0.5)
    assert pairs.specification.options.updates == 2
    with pytest.raises(SpecificationError, match="epochs and updates say the same twice"):
        taught(folder, "SFT", "sums.jsonl", None, epochs=1.0)
    with pytest.raises(SpecificationError, match="GRPO does not pass over stored texts"):
        taught(folder, "GRPO", "sums.jsonl", None, updates=None, epochs=1.0)


def test_texts_are_cut_into_tokens_once(folder, monkeypatch):
    counted, plain = [], texts.tokenised

    def counting(*arguments):
        counted.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(texts, "tokenised", counting)
    taught(folder, "DPO", "pairs.jsonl", None, updates=None, epochs=0.5, held_out="0.25")
    # 8 pairs.
    assert len(counted) == 16


def test_a_model_that_was_left_half_written_is_written_again(folder, tmp_path, monkeypatch):
    plain = LanguageModel.write

    def killed(self, decoder, directory):
        plain(self, decoder, directory)
        (directory / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "write", killed)
    # A process that is killed has no time to tidy up.
    monkeypatch.setattr(files.shutil, "rmtree", lambda *arguments, **options: None)
    with pytest.raises(KeyboardInterrupt):
        taught(folder, "SFT", "sums.jsonl", tmp_path / "run", rank=2)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "model").exists()
    assert (tmp_path / "run" / ".model.part" / "model.safetensors").read_bytes() == b"half"
    done = resume(tmp_path / "run", progress=False)
    written = read_decoder(tmp_path / "run" / "model")
    for one, other in zip(jax.tree.leaves(written), jax.tree.leaves(done.models[0].decoder)):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "run" / ".model.part").exists()


def test_columns_of_other_names_and_answers_alone(folder, tmp_path):
    asked = [{"question": f"{a}+", "answer": f"{a}"} for a in range(8)]
    rows(tmp_path / "asked.jsonl", asked)
    how = {"updates": 2, "held_out": "0.25"}
    usual = taught(folder, "SFT", "sums.jsonl", None, **how)
    names = {"prompt": "question", "completion": "answer"}
    found = taught(folder, "SFT", tmp_path / "asked.jsonl", None, columns=names, **how)
    assert found.specification.options.columns == ("prompt=question", "completion=answer")
    assert found.metrics[0]["metrics"] == usual.metrics[0]["metrics"]
    assert found.evaluations == usual.evaluations

    # A conversation is learned from whole, or what the assistant says of it.
    said = [
        {"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]}
    ]
    rows(tmp_path / "said.jsonl", said * 8)
    counted = [
        last(taught(folder, "SFT", tmp_path / "said.jsonl", None, updates=1, **options))["tokens"]
        for options in ({}, {"only_answers": True})
    ]
    # Four rows of "c", the line break of the template, and the token that ends it.
    assert counted[1] == 4 * 3 < counted[0]


def test_what_is_held_out_is_evaluated_and_not_learned_from(folder, tmp_path):
    # With more updates the digits that only the held-out rows have come to be ruled out.
    run = taught(folder, "SFT", "sums.jsonl", None, updates=16, evaluations=2, held_out="0.25")
    assert run.specification.score == "log-likelihood" and run.final_returns.shape == (1, 2)
    steps, scores = run.curve
    assert list(steps) == [0, 8, 16]
    # Before training all tokens are about as likely; what is common to all rows is learned.
    assert scores[0, 0] == pytest.approx(-math.log(264), abs=0.1) and scores[0, -1] > scores[0, 0]
    whole = taught(
        folder, "SFT", "sums.jsonl", None, updates=4, held_out=str(folder / "sums.jsonl")
    )
    assert whole.final_returns.shape == (1, 8)
    pairs = taught(folder, "DPO", "pairs.jsonl", None, updates=20, held_out="0.5")
    assert pairs.specification.score == "accuracy"
    # Ties count half: before training nothing is preferred.
    assert np.mean(pairs.evaluations[0]["returns"]) == 0.5 and pairs.final_returns.mean() == 1.0
    for share in ("0.01", "1.5", "0"):
        with pytest.raises(SpecificationError, match="must leave at least one on both sides"):
            taught(folder, "SFT", "sums.jsonl", None, held_out=share)

    # Judged afterwards, the same rows say the same as at the end of training.
    found = hw.evaluate(run)
    assert found.measure == "log-likelihood" and found.returns is None
    np.testing.assert_allclose(found.scores, run.final_returns, rtol=1e-6)
    assert found.score.point == pytest.approx(run.final_returns.mean(), rel=1e-6)
    assert found.perplexity.point == pytest.approx(np.exp(-run.final_returns.mean()), rel=1e-6)
    assert found.base == pytest.approx(scores[0, 0], rel=1e-5) and found.win_rate is None
    # All rows of another file are judged, whatever was held out.
    everything = hw.evaluate(run, data=folder / "sums.jsonl")
    assert everything.scores.shape == (1, 8)
    assert any(np.isclose(found.scores[0, 0], everything.scores[0], rtol=1e-5))
    agreed = hw.evaluate(pairs)
    assert agreed.measure == "accuracy" and agreed.base is agreed.perplexity is None
    np.testing.assert_array_equal(agreed.scores, pairs.final_returns)
    json.dumps(agreed.to_json())
    for wrong, sentence in (
        ({"env": "pendulum"}, "which is judged on texts"),
        ({"explore": True}, "leave out env, estimators and explore"),
        ({"reward": brevity}, "SFT does not learn from rewards"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            hw.evaluate(run, **wrong)
    with pytest.raises(DataError, match="there is no such file"):
        hw.evaluate(run, data=tmp_path / "none.jsonl")


def test_the_best_model_on_what_is_held_out_is_kept(folder, tmp_path):
    """Eight rows learned by heart: the digits that were held out are ruled out at last."""
    how = {"updates": 60, "evaluations": 12, "held_out": "0.25"}
    usual = taught(folder, "SFT", "sums.jsonl", None, **how)
    kept = taught(folder, "SFT", "sums.jsonl", tmp_path / "run", patience=3, **how)
    assert kept.finished and hw.open_run(kept.path).finished
    _, scores = usual.curve
    best = int(np.argmax(scores[0]))
    assert 0 < best < 9, "it becomes worse in time"
    assert kept.metrics[-1]["update"] == 5 * (best + 3) < 60
    assert kept.final_returns.mean() == pytest.approx(scores[0, best]) == kept.score().point
    # What is written is that model, and no later one.
    found = hw.evaluate(kept.path)
    np.testing.assert_allclose(found.scores, kept.final_returns, rtol=1e-5)
    place = kept.path / "model"
    for one, other in zip(
        *(jax.tree.leaves(x) for x in (read_decoder(place), kept.models[0].decoder))
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(SpecificationError, match="SFT is not evaluated while it learns"):
        taught(folder, "SFT", "sums.jsonl", None, keep_best=True)


@pytest.mark.parametrize("data", ["labelled.jsonl", "pairs.jsonl"])
def test_labels_are_learned_from(folder, data):
    run = taught(folder, "KTO", data, None, updates=20, held_out="0.5")
    assert run.specification.score == "accuracy" and run.final_returns.shape == (1, 8)
    assert np.mean(run.evaluations[0]["returns"]) == 0.5 and run.final_returns.mean() == 1.0
    # Judged afterwards, the same rows say the same as at the end of training.
    agreed = hw.evaluate(run)
    assert agreed.measure == "accuracy" and agreed.base is None
    np.testing.assert_array_equal(agreed.scores, run.final_returns)


def test_a_run_notices_that_the_model_it_began_with_has_changed(folder, fine_tuned, tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(folder / "model", base)
    shutil.copytree(fine_tuned.path, run)
    stored = json.loads((run / "run.json").read_text())
    assert stored["model"]["path"] == str((folder / "model").resolve())
    stored["model"]["path"] = str(base)
    (run / "run.json").write_text(json.dumps(stored))
    # Another place is no other model.
    assert hw.open_run(run).base.directory == base
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    for again in (hw.open_run, hw.evaluate, lambda path: resume(path, progress=False)):
        with pytest.raises(DataError, match=r"base has changed since this run began: restore it"):
            again(run)
    (base / "model.safetensors").write_bytes(weights)
    (base / "README.md").write_text("A description does not matter.")
    hw.open_run(run)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(DataError, match="has changed"):
        hw.open_run(run)
    shutil.rmtree(base)
    with pytest.raises(DataError, match="there is no such directory with a model"):
        hw.open_run(run)


def test_every_seed_of_a_run_is_judged_by_the_rewards_of_what_it_writes(
    folder, fine_tuned, tmp_path, capsys
):
    with pytest.raises(SpecificationError, match="sft held no texts out: give a file of texts"):
        hw.evaluate(fine_tuned.path)
    out = tmp_path / "grpo"
    taught(folder, "GRPO", "sums.jsonl", out, reward=brevity, seeds=2, updates=2)
    with pytest.raises(RunError, match="the reward 'brevity' is Python code"):
        hw.evaluate(out, data=folder / "sums.jsonl")
    found = hw.evaluate(out, data=folder / "sums.jsonl", reward=brevity)
    assert found.measure == "reward" and found.scores.shape == (2, 8)
    # Of nothing to 3 characters, one of which may repeat the question.
    assert (found.scores >= 0.25).all() and (found.scores <= 2.0).all()
    assert 0.25 <= found.base <= 2.0 and 0.0 <= found.win_rate.point <= 1.0
    # A model wins exactly half of the comparisons with itself: without learning nothing differs.
    still = taught(
        folder, "GRPO", "sums.jsonl", None, reward=brevity, updates=1,
        hyper_parameters={"learning_rate": 0.0},
    )  # fmt: skip
    same = hw.evaluate(still, data=folder / "sums.jsonl", reward=brevity)
    assert same.win_rate.point == 0.5 and same.base == pytest.approx(same.score.point)
    rewards = tmp_path / "rewards.py"
    rewards.write_text("def one(prompts, completions):\n    return [1.0 for _ in prompts]\n")
    evaluate_command(out, data=str(folder / "sums.jsonl"), reward=(f"{rewards}:one",))
    printed = capsys.readouterr().out
    assert "grpo on" in printed and "8 rows" in printed and "reward 1" in printed
    assert "win rate over the model that it began with 0.5" in printed


def test_a_function_as_reward_gives_the_numbers_of_its_compiled_twin(folder, fine_tuned):
    """Exact match, written in Python, against the one that is compiled."""

    def exact(prompts, completions):
        return [float(c == p.removesuffix("+")) for p, c in zip(prompts, completions)]

    model = fine_tuned.path / "model"
    for method in ("GRPO", "INPO"):
        how = {"model": model, "updates": 3}
        compiled = taught(folder, method, "sums.jsonl", None, **how)
        called = taught(folder, method, "sums.jsonl", None, reward=exact, **how)
        assert set(last(compiled)) == set(last(called))
        for one, other in zip(compiled.metrics, called.metrics):
            for name, value in one["metrics"].items():
                np.testing.assert_allclose(value, other["metrics"][name], rtol=1e-3, atol=1e-5)
        # Adam makes steps of the rate, 0.01, of the rounding of gradients that are nearly zero;
        # other rewards would move every weight by about that much.
        for one, other in zip(jax.tree.leaves(compiled.state), jax.tree.leaves(called.state)):
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-3)


def test_several_rewards_are_added_up_with_weights(folder, fine_tuned, tmp_path):
    """A classifier that was learned, a function of one's own and exact match, in one run."""
    judge = taught(folder, "ResponseClassifier", "labelled.jsonl", folder / "kinds", updates=40,
                   held_out="0.25", evaluations=1)  # fmt: skip
    assert judge.score().point > 0.5
    learned = load_reward(folder / "kinds", 264)

    def exact(prompts, completions):
        return [float(c == p.removesuffix("+")) for p, c in zip(prompts, completions)]

    path, how = str(folder / "kinds"), {"model": fine_tuned.path / "model", "updates": 2}
    several = {"reward": [path, "exact-match"], "reward_weights": (0.5, 2.0)}
    compiled = taught(folder, "GRPO", "sums.jsonl", tmp_path / "both", **several, **how)
    assert [choice.kind for choice in compiled.specification.rewards] == ["run", "file"]
    called = taught(folder, "GRPO", "sums.jsonl", tmp_path / "own", reward=[path, exact],
                    reward_weights=(0.5, 2.0), **how)  # fmt: skip
    written = texts.read_completions(folder / "sums.jsonl", ByteTokenizer(), 32).data
    assert np.abs(np.asarray(learned(written))).max() < 1.0
    for one, other in zip(compiled.metrics, called.metrics):
        for name, value in one["metrics"].items():
            np.testing.assert_allclose(value, other["metrics"][name], rtol=1e-3, atol=1e-5)
    scores = hw.evaluate(compiled, data=folder / "sums.jsonl").scores
    parts = [hw.evaluate(compiled, data=folder / "sums.jsonl", reward=reward).scores
             for reward in (path, "exact-match")]  # fmt: skip
    np.testing.assert_allclose(scores, 0.5 * parts[0] + 2.0 * parts[1], rtol=1e-4, atol=1e-5)
    again, plain = (hw.evaluate(called, data=folder / "sums.jsonl", reward=reward).scores
                    for reward in ([path, exact], [path, "exact-match"]))  # fmt: skip
    # Its own are given again, as they are Python code, and others with the same numbers.
    np.testing.assert_allclose(again, 0.5 * parts[0] + 2.0 * parts[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain, parts[0] + parts[1], rtol=1e-4, atol=1e-5)
    assert resume(tmp_path / "both", progress=False).specification == compiled.specification
    with pytest.raises(RunError, match=r"the reward '.*exact' is Python code"):
        hw.evaluate(called, data=folder / "sums.jsonl")


@pytest.mark.parametrize(
    ("method", "others", "said"),
    [
        ("GRPO", {"reward": []}, "the list of rewards is empty"),
        ("GRPO", {"reward": [brevity, 3]}, "3 is no reward"),
        ("GRPO", {"reward_weights": (1.0,)}, "give the rewards that they are of"),
        (
            "GRPO",
            {"reward": [brevity, "exact-match"], "reward_weights": (1.0,)},
            "reward_weights = 1: of 2 rewards, give a finite number for each",
        ),
        ("ALoL", {"reward": [brevity, "exact-match"]}, "leave exact-match out of its rewards"),
    ],
)
def test_rewards_that_do_not_fit_together_are_refused(folder, method, others, said):
    with pytest.raises(SpecificationError, match=said):
        taught(folder, method, "sums.jsonl", None, **others)


def test_functions_by_name_and_what_is_wrong_with_them(folder, tmp_path):
    (tmp_path / "rewards.py").write_text(
        "def length(prompts, completions):\n    return [len(c) for c in completions]\n"
        "def few(prompts, completions):\n    return [1.0]\n"
        "def broken(prompts, completions):\n    raise ValueError('out of order')\n"
        "def quits(prompts, completions):\n    raise SystemExit(3)\n"
    )
    place = f"{tmp_path}/rewards.py"
    run = taught(folder, "RLOO", "sums.jsonl", None, reward=f"{place}:length")
    assert run.specification.reward.name == f"{place}:length"
    for name, said in (
        ("few", "few must give one finite number for each of the"),
        ("broken", "broken failed: ValueError: out of order"),
        ("quits", "quits failed: SystemExit: 3"),
        ("none", "rewards.py has no function 'none'"),
    ):
        with pytest.raises(SpecificationError, match=said):
            taught(folder, "RLOO", "sums.jsonl", None, reward=f"{place}:{name}")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(4)\n")
    for reward, said in (
        ("lost.py:length", "there is no file"),
        (f"{tmp_path}/ends.py:any", r"ends.py cannot be imported \(4\)"),
        (place, "rewards.py is a file of Python: say which of its functions is the reward, as"),
    ):
        with pytest.raises(SpecificationError, match=said):
            taught(folder, "RLOO", "sums.jsonl", None, reward=reward)
    with pytest.raises(DataError, match="is a directory: give one of the files in it"):
        taught(folder, "RLOO", "", None)

    def judge(prompts, first, second):
        return [float(len(a) > len(b)) for a, b in zip(first, second)]

    assert taught(folder, "INPO", "sums.jsonl", None, judge=judge).finished
    with pytest.raises(SpecificationError, match="must give probabilities"):
        taught(folder, "INPO", "sums.jsonl", None, judge=lambda **texts: [7.0] * 4)


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
    before = fine_tuned.path / "model"
    done = taught(folder, method, data, folder / method.lower(), model=before, temperature=0.8)
    # Whoever writes and whoever learns agree, at this temperature too.
    assert last(done).get("sampler_gap", 0.0) < 1e-4
    start, end = read_decoder(before), read_decoder(done.path / "model")
    assert not np.array_equal(start.embedding, end.embedding)
    assert all(math.isfinite(value) for value in last(done).values())


def test_adapters_leave_the_rest_and_are_merged(folder):
    done = taught(
        folder, "DPO", "pairs.jsonl", folder / "adapted", updates=20, rank=2, alpha=6.0,
        target_modules=["q_proj", "value"],
    )  # fmt: skip
    start, end = read_decoder(folder / "model"), read_decoder(done.path / "model")
    assert np.array_equal(start.embedding, end.embedding)
    assert np.array_equal(start.blocks.down.weight, end.blocks.down.weight)
    assert not np.array_equal(start.blocks.query.weight, end.blocks.query.weight)
    better = evaluate_language(
        load_language_model(done.path / "model"), folder / "pairs.jsonl",
        against=load_language_model(folder / "model"),
    )  # fmt: skip
    assert better["accuracy"].point > 0.9
    config = json.loads((done.path / "adapters" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 6)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    # Alone, they stand for the model that they name with them on it.
    alone = load_language_model(done.path / "adapters")
    on_base = load_language_model(folder / "model", adapters=done.path / "adapters")
    for found in (alone, on_base):
        assert all(map(np.array_equal, jax.tree.leaves(found.decoder), jax.tree.leaves(end)))
    # What is learned on top is added to them, since the base is without them.
    more = taught(
        folder, "DPO", "pairs.jsonl", folder / "more", model=done.path / "adapters", rank=3,
        target_modules=["output"],
    )  # fmt: skip
    assert more.specification.model.adapters == str(done.path / "adapters")
    both = load_language_model(more.path / "adapters").decoder.blocks
    final = read_decoder(more.path / "model").blocks
    assert np.array_equal(final.query.weight, end.blocks.query.weight)
    assert not np.array_equal(final.output.weight, end.blocks.output.weight)
    for name in ("query", "value", "output"):
        one, other = (getattr(blocks, name).weight for blocks in (both, final))
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_adapters_that_cannot_be(folder, tmp_path):
    for options, error in (
        ({"alpha": 2.0}, "alpha and target_modules are of adapters: give their rank too"),
        ({"rank": 2, "target_modules": ["q_prog"]}, "unknown target module 'q_prog'"),
    ):
        with pytest.raises(SpecificationError, match=error):
            taught(folder, "DPO", "pairs.jsonl", None, **options)
    with pytest.raises(DataError, match="there is no such directory with adapters"):
        taught(folder, "DPO", "pairs.jsonl", None, adapters=str(tmp_path / "lost"))


def test_a_learned_reward_judges(folder):
    done = taught(folder, "RewardModel", "pairs.jsonl", folder / "reward", updates=20)
    assert last(done)["accuracy"] == 1.0
    reward = load_reward(folder / "reward", 264)
    # What is written for transformers rates as the run does.
    stored = load_reward(folder / "reward" / "model", 264)
    written = read_completions(folder / "sums.jsonl", ByteTokenizer(), 32).data
    np.testing.assert_allclose(stored(written), reward(written), rtol=1e-5)
    assert np.ptp(stored(written)) > 0.0
    with pytest.raises(DataError, match="does not score texts: take a LlamaForSequenceClassific"):
        load_reward(folder / "model")
    with pytest.raises(DataError, match="which does not predict tokens"):
        load_language_model(folder / "reward" / "model")
    found = evaluate_language(
        load_language_model(folder / "model"), folder / "sums.jsonl", reward=folder / "reward",
        new_tokens=3, against=load_language_model(folder / "model"),
    )  # fmt: skip
    assert found["win rate"].point == 0.5 and math.isfinite(found["reward"].point)
    # Several are added up, as the weights say.
    judged = lambda *rewards, **more: evaluate_language(
        load_language_model(folder / "model"), folder / "sums.jsonl", reward=rewards, new_tokens=3,
        **more,
    )["reward"].point  # fmt: skip
    alone = found["reward"].point
    both = judged(folder / "reward", "exact-match", weights=[2.0, 0.0])
    assert judged(folder / "reward") == pytest.approx(alone)
    assert both == pytest.approx(2 * alone, rel=1e-5) and alone != 0.0
    for weights in ([1.0], [1.0, math.nan]):
        with pytest.raises(SpecificationError, match="of 2 rewards, give a finite number for each"):
            judged(folder / "reward", "exact-match", weights=weights)
    done = taught(folder, "RLOO", "sums.jsonl", folder / "rloo", reward=folder / "reward")
    assert math.isfinite(last(done)["reward"])
    assert reward.state.step == 20
    for method in ("INPO", "ALoL"):
        judged = taught(folder, method, "sums.jsonl", None, reward=folder / "reward")
        assert all(math.isfinite(value) for value in last(judged).values())
    with pytest.raises(DataError, match="264 tokens are not the policy's 300"):
        load_reward(folder / "reward", 300)
    with pytest.raises(RunError, match="no run of a reward model"):
        load_reward(folder / "rloo")


def test_what_is_better_than_expected_is_imitated(folder):
    done = taught(folder, "ALoL", "judged.jsonl", folder / "leftovers", updates=60)
    model = load_language_model(done.path / "model")
    before, after = (
        evaluate_language(load_language_model(where), folder / "sums.jsonl", new_tokens=3)["loss"]
        for where in (folder / "model", done.path / "model")
    )
    assert after.point < before.point - 1.0
    assert model.tokenizer.end == 257


def test_tokens_are_counted_by_what_is_drawn(folder):
    """One row of plain text is many windows."""
    run = taught(folder, "SFT", "book.txt", None, updates=1)
    assert 0.5 * 4 * 32 < run.tokens_per_update <= 4 * 32


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


def test_words_can_be_asked_for_and_forbidden(folder):
    model = load_language_model(folder / "model")
    found = generate_texts(
        model, ["ab", "c"], new_tokens=6, samples=6, required=["xy|zz"], forbidden=["a"], once=["q"]
    )
    for answer in (answer["text"] for each in found for answer in each):
        assert ("xy" in answer or "zz" in answer) and "a" not in answer
        assert answer.count("q") <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "no prompt to answer"),
        ({"prompts": ["x"], "required": ["a|"]}, r"'a\|' has an empty word"),
        ({"prompts": ["x" * 40]}, "do not fit into the model's context of 32"),
        ({"prompts": ["x"], "temperature": 0.0}, "above zero"),
        ({"prompts": ["x"], "top_p": 1.5}, "top-p = 1.5"),
        ({"prompts": ["x"], "top_k": 0}, "top-k = 0"),
        ({"prompts": ["x"], "min_p": 1.5}, "min-p = 1.5"),
        ({"prompts": ["x"], "repetition_penalty": 0.0}, "repetition penalty = 0.0"),
    ],
)
def test_what_cannot_be_written_is_said(folder, options, message):
    model = load_language_model(folder / "model")
    with pytest.raises(SpecificationError, match=message):
        generate_texts(model, options.pop("prompts"), new_tokens=4, **options)


@pytest.mark.parametrize(
    ("method", "data", "others", "message"),
    [
        ("IQL", "sums.jsonl", {"samples": 3}, "IQL learns from logged experience: leave out model"),
        ("ALoL", "sums.jsonl", {}, "ALoL learns from rewards: give a column reward"),
        ("RLHFSharpening", "sums.jsonl", {"samples": 1}, "at least 2 are needed"),
        ("SFTT", "sums.jsonl", {}, "did you mean"),
        ("SFT", "pairs.jsonl", {}, "completions need 'prompt' and 'completion'"),
        ("DPO", "sums.jsonl", {}, "comparisons need 'chosen' and 'rejected'"),
        ("GRPO", "book.txt", {}, "no prompt may be empty"),
        ("GRPO", "sums.jsonl", {"new_tokens": 30}, "must fit into a context of 32"),
        ("GRPO", "sums.jsonl", {"reward": "nowhere"}, "is no run"),
        ("GRPO", "sums.jsonl", {"samples": 1}, "GRPO compares the responses .* at least 2 samples"),
        ("RLOO", "sums.jsonl", {"samples": 1}, "RLOO compares the responses .* at least 2 samples"),
        ("GRPO", "pairs.jsonl", {}, "no right answer to learn, give a reward"),
        (
            "GRPO",
            "sums.jsonl",
            {"new_tokens": 30, "reward": len},
            "a prompt of . tokens and 30 new ones do not fit into a context of 32",
        ),
        ("SFT", "sums.jsonl", {"updates": 0}, "at least 1"),
        ("SFT", "sums.jsonl", {"only_answers": True}, "only_answers is about conversations"),
        ("DPO", "pairs.jsonl", {"only_answers": True}, "DPO does not learn from 'messages'"),
        ("SFT", "sums.jsonl", {"columns": ["prompt"]}, "'prompt' does not say which column"),
        ("SFT", "sums.jsonl", {"columns": {"prompt": "ask"}}, "unknown column 'ask'"),
        ("GRPO", "sums.jsonl", {"top_k": 300}, "top-k = 300 must be from 1 to 264"),
        ("GRPO", "sums.jsonl", {"top_p": 0.0}, "top-p = 0.0 is a probability above 0"),
        (
            "GRPO",
            "sums.jsonl",
            {"hyper_parameters": {"temperature": 0.7}, "temperature": 0.9},
            "give the temperature",
        ),
        ("GRPO", "sums.jsonl", {"hyper_parameters": {"temperature": "hot"}}, "not of type float"),
        ("SFT", "sums.jsonl", {"hyper_parameters": {"lr": "1"}}, "unknown hyper-parameter 'lr'"),
    ],
)
def test_what_cannot_be_trained_is_said(folder, tmp_path, method, data, others, message):
    if method == "IQL":
        others = {"hyper_parameters": {}}
    with pytest.raises((SpecificationError, DataError, RunError), match=message):
        taught(folder, method, data, tmp_path / "run", **others)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_does_not_fit_is_said(folder, tmp_path):
    architecture = Architecture(200, 32, width=8, layers=1, heads=1, hidden=8)
    write_decoder(Decoder(architecture, key=jax.random.key(0)), tmp_path / "small")
    with pytest.raises(DataError, match=r"small: there is no .* has 259 tokens but .* only 200"):
        load_language_model(tmp_path / "small")
