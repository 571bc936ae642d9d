"""Batches that are read in parts: the gradient of the whole batch, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import headwater as hw
from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons, Completions, LabelledCompletions
from headwater.core.tokens import TokenProblem
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.changes import with_experts, with_gradient_accumulation
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.accumulation import in_parts
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.sources.language.packed import PackedReplay, Shape

ROWS, POSITIONS, VOCABULARY = 7, 12, 11
PLAIN = Decoder(
    Architecture(VOCABULARY, POSITIONS, 8, 3, 2, tied=True), key=jax.random.key(0), deviation=0.4
)
PARTED = with_gradient_accumulation(PLAIN, 3)


def texts(*shape: int, seed: int = 0) -> Completions:
    """Random ones of very different lengths, so that a mean of means would be another number."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, VOCABULARY, (*shape, POSITIONS)).astype(np.int32)
    length = random.integers(3, POSITIONS + 1, shape)[..., None]
    start = random.integers(1, 3, shape)[..., None]
    place = np.arange(POSITIONS)
    response = jnp.asarray((place >= start) & (place < length))
    chance = jnp.where(response, -random.exponential(size=response.shape), 0.0)
    return Completions(
        jnp.asarray(tokens), response, jnp.asarray(random.normal(size=shape), jnp.float32), chance
    )


SOME = texts(ROWS)
PAIRS = CompletionComparisons(texts(ROWS, seed=1), texts(ROWS, seed=2))
LABELLED = LabelledCompletions(texts(ROWS, seed=3), jnp.arange(ROWS) % 3 > 0)
WRITTEN = texts(3, 2, seed=4)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # Each reads its network in a way of its own; what is left out does as KTO does, and THOR as
        # IQLearnLM.
        ("IQLearnLM", SOME),
        ("RaPTr", SOME),
        ("TLEG", SOME),
        ("RewardModel", PAIRS),
        ("KTO", LABELLED),  # Compares the rows of a batch with each other.
        ("TokenPPO", WRITTEN),
    ],
)
def test_an_update_is_that_of_the_whole_batch(name, data, key):
    """7 rows in parts of 3, 3 and 1 have the gradient of 7 rows."""
    own = {"RaPTr": {"path_length": 2}}.get(name, {})
    method = hw.build_method(name, own)

    @jax.jit
    def update(network):
        state = method.init(TokenProblem(network), key=key)
        return method.update(state, data, key=key)

    (whole, usual), (parted, found) = update(PLAIN), update(PARTED)
    for metric, value in usual.items():
        np.testing.assert_allclose(found[metric], value, rtol=1e-4, atol=1e-6, err_msg=metric)
    ours, theirs = (jax.tree.leaves(_first_moments(state)) for state in (parted, whole))
    largest = max(float(jnp.abs(leaf).max()) for leaf in theirs)
    assert largest > 1e-4
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * largest)


def _first_moments(state):
    """Of Adam after one update: a tenth of the gradient."""
    tuned = getattr(state, "tuned", state)
    return optax.tree.get(tuned.optimiser, "mu")


def test_texts_that_share_rows_are_read_in_parts_of_these(key):
    short = texts(12, seed=5)
    short = Completions(short.tokens, short.response & (jnp.arange(POSITIONS)[None] < 6))
    source = PackedReplay(short, 8, (Shape(5, POSITIONS), Shape(8, POSITIONS)))
    keys = jax.random.split(key, 1)
    batch = jax.tree.map(lambda x: x[0], source.draw((), Agent(hw.SFT(), None), keys=keys)[1])
    assert batch.packing is not None and batch.packing.rows == 5

    def loss(network):
        own = token_log_probabilities(network, batch)
        return -averaged(own, jnp.asarray(batch.response), "token")

    gradient = jax.jit(jax.grad(loss))
    for one, other in zip(jax.tree.leaves(gradient(PARTED)), jax.tree.leaves(gradient(PLAIN))):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_less_is_kept_in_memory():
    shape = Architecture(256, 64, 16, 2, 2)
    tokens = jnp.zeros((16, 64), jnp.int32)
    data = Completions(tokens, tokens == 0)

    def temporary(parts: int) -> int:
        network = with_gradient_accumulation(Decoder(shape, key=jax.random.key(0)), parts)
        loss = lambda network: jnp.sum(token_log_probabilities(network, data))
        program = jax.jit(jax.grad(loss)).lower(network).compile()
        found = program.memory_analysis()
        assert found is not None
        return found.temp_size_in_bytes

    # An eighth of the rows, and what there is besides them.
    assert temporary(8) < 0.25 * temporary(1)


def test_parts_need_not_be_equal():
    rows = jnp.arange(7.0)
    seen = []

    def squares(x):
        seen.append(x.shape[0])
        return {"square": x**2}

    found = in_parts(squares, rows, 3)["square"]
    np.testing.assert_array_equal(found, rows**2)
    assert seen == [3]
    np.testing.assert_array_equal(in_parts(squares, rows, 100)["square"], rows**2)
    np.testing.assert_array_equal(in_parts(squares, rows, 1)["square"], rows**2)


def test_batches_that_are_shared_out_among_experts_are_not_read_in_parts(key):
    network = with_experts(PARTED, 2, key=key)
    method = hw.build_method("Switch")
    with pytest.raises(SpecificationError, match="so that it is not read in parts: leave out"):
        method.update(method.init(TokenProblem(network), key=key), SOME, key=key)
