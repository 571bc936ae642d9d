"""Fine-tuning against NumPy and on frequencies that are known."""

import json

import jax
import numpy as np
import pytest

import headwater as hw
from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import write_decoder
from headwater.networks.token_table import PrefixTable
from headwater.texts.tokenizers import ByteTokenizer

from ..exact_texts import RESPONSES, learn
from ..text_twin import log_probabilities, problem, some_texts, update


@pytest.mark.parity
def test_sft_averages_over_the_tokens_of_responses(key):
    task, data = problem(), some_texts(6)
    method = SFT()
    _, metrics = update(method, method.init(task, key=key), data, key)
    own = log_probabilities(task.network, data)
    tokens = np.asarray(data.response).sum()
    assert float(metrics["loss"]) == pytest.approx(-own.sum() / tokens, rel=1e-5)
    assert float(metrics["tokens"]) == tokens


@pytest.mark.oracle
def test_sft_reaches_the_frequencies_of_what_it_is_shown(key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    shown = np.asarray([0, 0, 0, 1, 4, 4, 8, 8])
    data = jax.tree.map(lambda x: x[0, shown], RESPONSES.data)
    state, _ = learn(SFT(learning_rate=0.1), task, data, key=key, updates=300)
    probabilities = np.exp(log_policy(state.network, RESPONSES))[0]
    frequencies = np.bincount(shown, minlength=9) / len(shown)
    np.testing.assert_allclose(probabilities, frequencies, atol=0.01)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_batches_in_parts_have_the_loss_and_gradient_of_trl(tmp_path):
    """TRL adds up the gradients of 4 batches of 2; here one of 8 is read in 4 parts."""
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

    shape = Architecture(264, 32, width=16, layers=2, heads=2, hidden=32, tied=True)
    model = Decoder(shape, key=jax.random.key(0), deviation=0.3)
    write_decoder(model, tmp_path / "model", end=257)
    ByteTokenizer().write(tmp_path / "model")
    # Of very different lengths: a mean of the means of parts would be another number.
    rows = [{"prompt": f"{i}+", "completion": "ab" * (1 + i)} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SFTConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=2,
        gradient_accumulation_steps=4, max_steps=1, learning_rate=1e-3, logging_steps=1,
        report_to="none", use_cpu=True, bf16=False, save_strategy="no",
    )  # fmt: skip
    trainer = SFTTrainer(
        str(tmp_path / "model"), args=settings, train_dataset=datasets.Dataset.from_list(rows)
    )
    trainer.train()
    theirs = next(row for row in trainer.state.log_history if "grad_norm" in row)
    run = hw.train(
        hw.SFT(learning_rate=1e-3), tmp_path / "rows.jsonl", model=tmp_path / "model", updates=1,
        batch_size=8, gradient_accumulation=4, progress=False,
    )  # fmt: skip
    ours = run.metrics[0]["metrics"]
    assert ours["loss"][0] == pytest.approx(theirs["loss"], rel=1e-4)
    assert ours["gradient_norm"][0] == pytest.approx(theirs["grad_norm"], rel=1e-3)
