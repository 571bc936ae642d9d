"""Stored texts that are read side by side: the same losses, for a small part of the work."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.feed import Feed
from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons, Completions, LabelledCompletions
from headwater.core.tokens import TokenProblem
from headwater.methods.language.comparisons.kto import KTO
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.methods.language.texts.ef21 import EF21
from headwater.methods.language.texts.iq_learn import IQLearnLM
from headwater.methods.language.texts.mezo import MeZO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import Adapted
from headwater.ops.language.packing import packed
from headwater.ops.language.tokens import token_log_probabilities
from headwater.runs.feeds.flow import Inputs
from headwater.runs.feeds.language import FLOWS
from headwater.runs.loop import run
from headwater.runs.options import Options
from headwater.runs.stage import Stage
from headwater.sources.language.completions import CompletionReplay
from headwater.sources.language.packed import PackedReplay, Shape, shapes_for
from headwater.texts.models import LanguageModel
from headwater.texts.tokenizers import ByteTokenizer

POSITIONS, VOCABULARY, ROWS = 64, 11, 8
LLAMA = Decoder(
    Architecture(VOCABULARY, POSITIONS, 16, 1, 4, key_value_heads=2),
    key=jax.random.key(0),
    deviation=0.3,
)
WINDOW = Decoder(
    Architecture(VOCABULARY, POSITIONS, 16, 1, 4, key_value_heads=2, window=3),
    key=jax.random.key(3),
    deviation=0.3,
)
GPT2 = Decoder(gpt2(VOCABULARY, POSITIONS, 16, 1, 2), key=jax.random.key(1), deviation=0.3)
SHAPES = (Shape(2, 16), Shape(3, 32), Shape(ROWS, POSITIONS))


def texts(lengths, seed: int) -> Completions:
    """Random tokens; prompts of one to three of them, and what is behind the texts is noise."""
    random = np.random.default_rng(seed)
    lengths = np.asarray(lengths)[:, None]
    tokens = random.integers(0, VOCABULARY, (lengths.size, POSITIONS)).astype(np.int32)
    start = random.integers(1, 4, lengths.shape)
    place = np.arange(POSITIONS)
    return Completions(jnp.asarray(tokens), jnp.asarray((place >= start) & (place < lengths)))


SHORT = [4, 5, 6, 7, 4, 5, 6, 4, 5, 6, 7, 7]
COMPLETIONS = texts(SHORT, 0)
COMPARISONS = CompletionComparisons(texts(SHORT, 1), texts(SHORT[::-1], 2))
LABELLED = LabelledCompletions(texts(SHORT, 3), jnp.arange(12) % 3 > 0)


def first(source, key):
    """The first batch of the first of two seeds."""
    agent = Agent(SFT(), None)
    keys = jax.random.split(key, 2)
    _, data = source.draw(source.init(keys=keys), agent, keys=keys)
    return jax.tree.map(lambda x: x[0], data), keys[0]


@pytest.mark.parametrize(
    ("method", "data"),
    # What is left out has the same pieces: DPO those of KTO, which has one text more. IQLearnLM and
    # EF21 read each text in a row of its own, whether others are read side by side or not.
    [
        (MeZO(learning_rate=1e-2, loss="errors"), COMPLETIONS),
        (IQLearnLM(learning_rate=1e-2), COMPLETIONS),
        (EF21(learning_rate=1e-2, num_workers=2, message_size=50), COMPLETIONS),
        (RewardModel(learning_rate=1e-2), COMPARISONS),
        (KTO(learning_rate=1e-2), LABELLED),
    ],
    ids=lambda x: type(x).__name__,
)
def test_an_update_is_what_it_is_with_padding(method, data, key):
    source = PackedReplay(data, ROWS, SHAPES)
    batch, draw_key = first(source, key)
    # Of 64 places in a row, 16 or 32 are left, and of 8 rows 2 or 3.
    assert jax.tree.leaves(batch)[0].shape[-1] < POSITIONS
    _, whole = CompletionReplay(data, ROWS).draw((), Agent(method, None), key=draw_key)
    state = method.init(TokenProblem(LLAMA), key=key)

    @jax.jit
    def updated(state, data):
        return method.update(state, data, key=key)

    (_, ours), (_, theirs) = updated(state, batch), updated(state, whole)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("network", [GPT2, Adapted(WINDOW, key=jax.random.key(2), rank=2)])
def test_probabilities_of_tokens_are_what_they_are_with_padding(network, key):
    batch, draw_key = first(PackedReplay(COMPLETIONS, ROWS, SHAPES), key)
    _, whole = CompletionReplay(COMPLETIONS, ROWS).draw((), Agent(SFT(), None), key=draw_key)
    of = jax.jit(token_log_probabilities)
    ours, theirs = np.asarray(of(network, batch)), np.asarray(of(network, whole))
    np.testing.assert_allclose(ours, theirs[:, : ours.shape[1]], rtol=2e-5, atol=2e-6)
    assert (theirs[:, ours.shape[1] :] == 0).all() and (ours != 0).sum() >= 20


def test_texts_in_one_row_do_not_see_each_other(key):
    source = PackedReplay(COMPLETIONS, ROWS, SHAPES)
    batch, _ = first(source, key)
    assert isinstance(batch, Completions) and batch.packing is not None
    together, text = packed(batch, batch.packing)
    numbers = np.asarray(text)
    assert (np.sort(np.unique(numbers)) == np.arange(ROWS + 1)).all()

    def read(tokens):
        return np.asarray(LLAMA.packed_hidden(tokens, text))

    usual = read(together.tokens)
    # Every token of the third text is changed: nothing of the others moves by a bit.
    mine = numbers == 3
    changed = read(jnp.where(mine, (together.tokens + 1) % VOCABULARY, together.tokens))
    np.testing.assert_array_equal(changed[~mine], usual[~mine])
    assert (changed[mine] != usual[mine]).any()


def test_one_long_text_costs_little():
    # 200 texts of 8 tokens and one of 512; attention costs as much as products at 64 · 4 tokens.
    rows, positions = 16, 512
    lengths = np.array([8] * 200 + [positions])
    response = np.arange(positions) < lengths[:, None]
    data = Completions(np.zeros(response.shape, np.int32), response)
    shapes, share = shapes_for(data, rows, 64)
    assert shapes[-1] == (rows, positions)
    # By hand: without the long text, 16 texts of 8 fill 128 tokens.
    assert shapes[0].rows * shapes[0].width == rows * 8
    usual = rows * 16 * (1 + 16 / 256)
    padded = rows * positions * (1 + positions / 256)
    assert share * padded < 3 * usual


def test_texts_of_one_length_gain_nothing():
    data = Completions(np.zeros((20, 32), np.int32), np.ones((20, 32), bool))
    shapes, share = shapes_for(data, 4, 64)
    assert shapes == ((4, 32),) and share == 1.0


def test_a_run_in_two_shapes_ends_where_one_in_the_largest_does():
    data = texts([*SHORT, 60], 4)
    ends = []
    for shapes in (SHAPES[1:], SHAPES[2:]):
        stage = Stage("tuning", SFT(learning_rate=1e-3), PackedReplay(data, ROWS, shapes), 4)
        result = run([stage], TokenProblem(LLAMA), seeds=2, logs=1, progress=False)
        ends.append(result.outcomes["tuning"].state.network)
    for ours, theirs in zip(*map(jax.tree.leaves, ends)):
        # Adam divides by gradients, so that rounding is seen in the weights.
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_files_of_very_different_lengths_are_read_without_padding(tmp_path):
    model = LanguageModel(
        Decoder(Architecture(256, 512, 16, 1, 2), key=jax.random.key(0)), ByteTokenizer()
    )
    found = {}
    for name, long in (("even", 8), ("uneven", 400)):
        rows = [{"prompt": "a", "completion": "b" * 8}] * 60
        rows += [{"prompt": "a", "completion": "b" * long}]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        options = Options(updates=1, batch_size=4)
        flow = FLOWS[Completions, Feed.STORED]
        found[name] = flow.stage(SFT(), Inputs(path, model=model), options).stage.source
    assert isinstance(found["even"], CompletionReplay)
    assert isinstance(found["uneven"], PackedReplay)
