"""Learning from demonstrations that are read apart, against `SFT` and against Adam's first step."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.api.language.write import generate_texts
from headwater.core.errors import DataError, SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.in_context_tasks import LabelledPoints
from headwater.methods.language.texts.saicl import SAICL
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import write_decoder
from headwater.networks.token_table import PrefixTable
from headwater.texts.models import load_language_model
from headwater.texts.tokenizers import ByteTokenizer

from ..exact_texts import learn

TASK = LabelledPoints(count=3)
DECODER = Decoder(
    Architecture(TASK.vocabulary, 20, 8, 2, 2, hidden=8), key=jax.random.key(0), deviation=0.3
)
TOKENS = {"separator": TASK.separator, "answer": TASK.answer}
RATES = {"learning_rate": 0.01, "max_gradient_norm": float("inf")}


def texts() -> Completions:
    return TASK.texts(6, key=jax.random.key(1))


@pytest.mark.equivalence("SFT")
def test_prompts_without_an_answer_are_learned_from_as_by_sft(key):
    data = texts()
    data = Completions(jnp.where(data.tokens == TASK.answer, 0, data.tokens), data.response)
    problem = TokenProblem(DECODER)
    own, metrics = learn(SAICL(**TOKENS, **RATES), problem, data, key=key, updates=3)
    plain, expected = learn(SFT(**RATES), problem, data, key=key, updates=3)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(
        own.network.decoder.blocks.up.weight, plain.network.blocks.up.weight, atol=2e-4
    )
    assert float(jnp.abs(plain.network.blocks.up.weight - DECODER.blocks.up.weight).max()) > 0.01


@pytest.mark.equivalence
def test_demonstrations_in_another_order_and_in_blocks_teach_the_same(key):
    data, problem = texts(), TokenProblem(DECODER)
    shown = 4 * TASK.count
    turned = jnp.roll(data.tokens[:, :shown].reshape(6, TASK.count, 4), 1, axis=1)
    other = data.tokens.at[:, :shown].set(turned.reshape(6, shown))
    # Padding, which is in nobody's way.
    other = jnp.pad(other, [(0, 0), (0, 2)], constant_values=TASK.separator)
    other = Completions(other, jnp.pad(data.response, [(0, 0), (0, 2)]))
    whole = SAICL(**TOKENS, **RATES)
    blocks = SAICL(**TOKENS, **RATES, demonstration_tokens=4, query_tokens=4)
    first, metrics = learn(whole, problem, data, key=key, updates=3)
    second, again = learn(blocks, problem, other, key=key, updates=3)
    np.testing.assert_allclose(again["loss"], metrics["loss"], rtol=1e-4)
    for one, two in zip(jax.tree.leaves(first.network), jax.tree.leaves(second.network)):
        np.testing.assert_allclose(one, two, atol=2e-4)
    assert float(metrics["loss"][0]) != float(metrics["loss"][2])


@pytest.mark.parity
def test_the_loss_is_that_of_the_answers_and_every_text_counts(key):
    data = texts()
    method = SAICL(**TOKENS)
    state = method.init(TokenProblem(DECODER), key=key)
    _, metrics = eqx.filter_jit(method.update)(state, data, key=key)
    logits = np.asarray(eqx.filter_jit(state.network.logits)(data.tokens), np.float64)
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    tokens = np.asarray(data.tokens)
    own = [chances[i, place - 1, tokens[i, place]] for i in range(6) for place in (14, 15)]
    assert float(metrics["loss"]) == pytest.approx(-np.mean(own), rel=1e-5)


def test_a_model_that_is_written_reads_demonstrations_apart_when_it_is_loaded(tmp_path):
    shape = Architecture(264, 32, width=16, layers=1, heads=2, hidden=16, tied=True)
    write_decoder(Decoder(shape, key=jax.random.key(0), deviation=0.3), tmp_path / "model", end=257)
    ByteTokenizer().write(tmp_path / "model")
    rows = [{"prompt": f"\n{i}+\n3-\n{i}>", "completion": "+"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = {"updates": 1, "batch_size": 2, "model": tmp_path / "model", "out": tmp_path / "run"}
    run = hw.train(SAICL(learning_rate=1e-2), tmp_path / "rows.jsonl", **how, progress=False)
    loaded = load_language_model(tmp_path / "run" / "model")
    assert loaded.structure == run.models[0].structure == (10, 62, True, None, None)
    prompts = ["\n1+\n2-\n33+\n4>", "\n33+\n1+\n2-\n4>"]
    # The begin token is before the first separator, so that it is in no demonstration.
    chances = lambda model: [
        written[0]["log_probability"]
        for written in generate_texts(model, prompts, new_tokens=4, greedy=True)
    ]
    first, second = chances(loaded)
    assert first == pytest.approx(second, abs=1e-5)
    plain = chances(dataclasses.replace(loaded, structure=None))
    assert abs(plain[0] - plain[1]) > 1e-3
    with pytest.raises(SpecificationError, match="leave out the rank"):
        how |= {"model": tmp_path / "run" / "model", "out": None, "rank": 2}
        hw.train("SFT", tmp_path / "rows.jsonl", **how, progress=False)
    for content, sentence in (
        ('{"separator": 1}', "missing 1 required positional argument: 'answer'"),
        ('{"separator": 1, "answer": 264}', "answer = 264 is no token of this decoder"),
    ):
        (tmp_path / "run" / "model" / "structured_attention.json").write_text(content)
        with pytest.raises(DataError, match=sentence):
            load_language_model(tmp_path / "run" / "model")


def test_what_is_no_decoder_is_refused(key):
    with pytest.raises(SpecificationError, match="PrefixTable is no decoder"):
        SAICL().init(TokenProblem(PrefixTable(3, 3)), key=key)
