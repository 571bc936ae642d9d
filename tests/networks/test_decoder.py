"""Decoders: cached and whole reading agree, padding is ignored, layers can be put in and out."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import Prompts
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.blocks import fresh_blocks
from headwater.networks.decoders.changes import silent, with_inserted, with_layers, with_precision
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.rotary import RotaryScaling, rotary_frequencies
from headwater.ops.language.generation import generate
from headwater.ops.language.tokens import token_log_probabilities

LLAMA = Architecture(11, 16, 16, 3, 4, key_value_heads=2)
GPT2 = gpt2(11, 16, 16, 2, 2)
WINDOW = Architecture(11, 16, 16, 1, 2, window=3)
SEVERAL_KINDS = Architecture(
    *(11, 16, 16, 3, 4),
    key_value_heads=2,
    norm_places="both",
    centred_norms=True,
    query_norm="whole",
    query_bound=0.4,
    feed_forward="geglu",
    embedding_scale=2.0,
    residual_scale=0.5,
    attention_scale=0.3,
    attention_bound=2.0,
    logit_divisor=0.7,
    logit_bound=3.0,
    window=3,
    local_layers=(True, False, True),
    local_rotary_base=100.0,
    rotary_width=2,
    rotary_layers=(True, True, False),
    rotary_scaling=RotaryScaling("yarn", 4.0, 1.0, 32.0, 4, 1.2),
)
BOTH = pytest.mark.parametrize("architecture", [LLAMA, GPT2], ids=["llama", "gpt2"])


@eqx.filter_jit
def _decoder(architecture, key):
    return Decoder(architecture, key=key, deviation=0.3)


def decoder(architecture, key):
    return _decoder(architecture, key)


@eqx.filter_jit
def written_by(network, prompts, new_tokens, key, samples=None):
    return generate(network, prompts, new_tokens, key=key, end=3, samples=samples)


again_by = eqx.filter_jit(token_log_probabilities)


@eqx.filter_jit
def logits(network, tokens):
    return network.logits(tokens)


def texts(key, rows=5, positions=7):
    return jax.random.randint(key, (rows, positions), 0, 11)


@pytest.mark.parametrize(
    "architecture",
    [LLAMA, GPT2, WINDOW, SEVERAL_KINDS],
    ids=["llama", "gpt2", "window", "several kinds"],
)
def test_cached_generation_gives_the_probabilities_of_recomputation(architecture, key):
    network = decoder(architecture, key)
    prompts = Prompts(texts(key), jnp.array([1, 7, 3, 5, 2]))
    written = written_by(network, prompts, 8, key, samples=2)
    again = again_by(network, written)
    assert written.log_probability is not None
    np.testing.assert_allclose(written.log_probability, again, atol=1e-5)
    assert int(written.response.sum()) > 20


@BOTH
def test_generation_does_not_depend_on_what_pads_the_prompts(architecture, key):
    network = decoder(architecture, key)
    tokens, length = texts(key), jnp.array([1, 6, 3, 5, 2])
    other = jnp.where(jnp.arange(7)[None] < length[:, None], tokens, 4)
    first = written_by(network, Prompts(tokens, length), 8, key, samples=2)
    second = written_by(network, Prompts(other, length), 8, key, samples=2)
    assert first.log_probability is not None and second.log_probability is not None
    assert jnp.array_equal(first.tokens, second.tokens)
    np.testing.assert_allclose(first.log_probability, second.log_probability, atol=1e-6)


@BOTH
def test_later_tokens_change_nothing_earlier(architecture, key):
    network, tokens = decoder(architecture, key), texts(key)
    whole = logits(network, tokens)
    np.testing.assert_allclose(logits(network, tokens[:, :4]), whole[:, :4], atol=1e-5)
    changed = logits(network, tokens.at[:, 4].add(1) % 11)
    np.testing.assert_allclose(changed[:, :4], whole[:, :4], atol=1e-5)
    assert float(jnp.abs(changed[:, 4:] - whole[:, 4:]).max()) > 1e-2


def test_a_window_shows_so_many_positions(key):
    network, tokens = decoder(WINDOW, key), texts(key, 1, 10)
    usual = logits(network, tokens)
    changed = logits(network, tokens.at[0, 4].set((tokens[0, 4] + 1) % 11))
    moved = np.abs(np.asarray(changed - usual)).max(axis=-1)[0] > 1e-6
    # Three positions, its own included: from 4 to 6.
    assert np.flatnonzero(moved).tolist() == [4, 5, 6]


@BOTH
def test_logits_are_linear_in_hidden_states_and_take_any_batch(architecture, key):
    network, tokens = decoder(architecture, key), texts(key, 6)
    expected = network.hidden(tokens) @ network.output_weights().T
    np.testing.assert_allclose(logits(network, tokens), expected, atol=1e-5)
    by_two = logits(network, tokens.reshape(2, 3, 7)).reshape(6, 7, 11)
    np.testing.assert_allclose(by_two, logits(network, tokens), atol=1e-6)
    np.testing.assert_allclose(logits(network, tokens[0]), logits(network, tokens)[0], atol=1e-5)


def test_a_llama_by_hand(key):
    """The same network in NumPy, with loops over heads and positions."""
    a = dataclasses.replace(LLAMA, layers=2)
    network = decoder(a, key)
    tokens = np.asarray(texts(key, 1)[0])
    blocks = jax.tree.map(np.asarray, network.blocks)

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + a.epsilon) * scale

    def turned(x, position):
        half = a.head_width // 2
        angle = position * a.rotary_base ** (-np.arange(half) / half)
        pair = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
        return np.concatenate([pair.real, pair.imag])

    x = np.asarray(network.embedding)[tokens]
    for layer in range(a.layers):
        y = norm(x, blocks.attention_norm.scale[layer])
        q, k, v = (y @ m.weight[layer] for m in (blocks.query, blocks.key, blocks.value))
        seen = np.zeros((len(tokens), a.heads * a.head_width))
        for head in range(a.heads):
            mine = slice(head * a.head_width, (head + 1) * a.head_width)
            shared = slice(head // 2 * a.head_width, (head // 2 + 1) * a.head_width)
            for i in range(len(tokens)):
                scores = [turned(q[i, mine], i) @ turned(k[j, shared], j) for j in range(i + 1)]
                probabilities = np.exp(np.array(scores) / np.sqrt(a.head_width))
                seen[i, mine] = probabilities / probabilities.sum() @ v[: i + 1, shared]
        x = x + seen @ blocks.output.weight[layer]
        y = norm(x, blocks.feed_forward_norm.scale[layer])
        gate = y @ blocks.gate.weight[layer]
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (y @ blocks.up.weight[layer]))
            @ (blocks.down.weight[layer])
        )
    x = norm(x, np.asarray(network.final_norm.scale))
    expected = x @ np.asarray(network.unembedding).T
    np.testing.assert_allclose(logits(network, jnp.asarray(tokens)), expected, atol=1e-4)


def test_layers_left_out_repeated_and_put_in(key):
    network, tokens = decoder(LLAMA, key), texts(key)
    grown = with_layers(network, [0, 1, 1, 2])
    assert grown.architecture.layers == 4 and grown.blocks.count == 4
    assert jnp.array_equal(grown.blocks.up.weight[2], network.blocks.up.weight[1])
    back = with_layers(grown, [0, 1, 3])
    assert eqx.tree_equal(back, network)
    more = silent(fresh_blocks(LLAMA, 2, key=key))
    longer = with_inserted(network, more, 1)
    assert longer.architecture.layers == 5
    np.testing.assert_allclose(logits(longer, tokens), logits(network, tokens), atol=1e-5)
    loud = with_inserted(network, fresh_blocks(LLAMA, 2, key=key, deviation=0.3), 3)
    assert float(jnp.abs(logits(loud, tokens) - logits(network, tokens)).max()) > 1e-2
    with pytest.raises(SpecificationError, match="no layer 3: the decoder has layers 0 to 2"):
        with_layers(network, [0, 3])
    with pytest.raises(SpecificationError, match="before one of 0 to 3, not 4"):
        with_inserted(network, more, 4)
    # The moments of an optimiser have the same form, with nothing where nothing is trained.
    moments = eqx.tree_at(lambda d: d.embedding, network, None)
    assert with_layers(moments, [2]).blocks.count == 1


def test_a_path_through_some_layers_is_the_network_of_these(key):
    network, tokens = decoder(LLAMA, key), texts(key)
    path = jax.jit(lambda layers: network.logits_along(tokens, layers))
    for layers in ([0, 2], [2, 1]):
        expected = logits(with_layers(network, layers), tokens)
        np.testing.assert_allclose(path(jnp.array(layers)), expected, atol=1e-5)
    nothing = network.logits_along(tokens, jnp.array([0, 2]), residual_scale=0.0)
    none = with_inserted(with_layers(network, [0]), silent(network.blocks), 1)
    none = eqx.tree_at(lambda d: d.blocks, none, silent(none.blocks))
    np.testing.assert_allclose(nothing, logits(none, tokens), atol=1e-5)


def test_bfloat16(key):
    network, tokens = decoder(LLAMA, key), texts(key)
    half = with_precision(network, "bfloat16")
    assert half.embedding.dtype == jnp.bfloat16 and half.hidden(tokens).dtype == jnp.bfloat16
    assert logits(half, tokens).dtype == jnp.float32
    mixed = with_precision(network, "bfloat16", stored="float32")
    assert mixed.embedding.dtype == jnp.float32
    np.testing.assert_allclose(logits(half, tokens), logits(mixed, tokens), atol=1e-6)
    exact, close = jax.nn.softmax(logits(network, tokens)), jax.nn.softmax(logits(half, tokens))
    np.testing.assert_allclose(close, exact, atol=0.05)
    gradient = jax.jit(jax.grad(lambda n: n.logits(tokens).sum()))(mixed)
    assert gradient.blocks.up.weight.dtype == jnp.float32
    written = written_by(half, Prompts(tokens, jnp.full(5, 7)), 4, key)
    assert bool(jnp.isfinite(written.log_probability).all())


@BOTH
def test_training_lowers_the_loss_of_a_text(architecture, key):
    network, tokens = Decoder(architecture, key=key), texts(key, 1, 8)
    data = Completions(tokens, jnp.arange(8)[None] > 0)

    def loss(network):
        return -jnp.sum(token_log_probabilities(network, data))

    @jax.jit
    def trained(network):
        def one(network, _):
            steps = jax.grad(loss)(network)
            return jax.tree.map(lambda x, g: x - 0.1 * g, network, steps), None

        return jax.lax.scan(one, network, None, length=60)[0]

    assert loss(network) > 15.0
    assert loss(trained(network)) < 1.0


def test_initial_weights(key):
    a = Architecture(50, 8, 64, 8, 4, hidden=256, dtype="bfloat16")
    network = Decoder(a, key=key, stored="float32")
    assert float(network.embedding.std()) == pytest.approx(0.02, rel=0.05)
    assert float(network.blocks.up.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(network.blocks.down.weight.std()) == pytest.approx(0.005, rel=0.05)
    other = Decoder(a, key=jax.random.key(1), stored="float32")
    assert float(jnp.abs(other.embedding - network.embedding).max()) > 0.01
    assert network.embedding.dtype == jnp.float32


def test_gradient_checkpointing_changes_no_gradient(key):
    network, tokens = decoder(SEVERAL_KINDS, key), texts(key)
    frugal = dataclasses.replace(SEVERAL_KINDS, gradient_checkpointing=True)
    frugal = eqx.tree_at(lambda d: d.blocks, decoder(frugal, key), network.blocks)

    @eqx.filter_jit
    def compared(*networks):
        loss = lambda network: jnp.mean(network.logits(tokens) ** 2)
        return [jax.tree.leaves(eqx.filter_grad(loss)(each)) for each in networks]

    for one, other in zip(*compared(network, frugal)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_layers_keep_their_kind_when_others_are_left_out(key):
    network, tokens = decoder(SEVERAL_KINDS, key), texts(key)
    fewer = with_layers(network, [2, 1])
    assert fewer.architecture.local_layers == (True, False)
    assert fewer.architecture.rotary_layers == (False, True)
    along = eqx.filter_jit(lambda network, layers: network.logits_along(tokens, layers))
    np.testing.assert_allclose(
        logits(fewer, tokens), along(network, jnp.array([2, 1])), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(SpecificationError, match="whose layers are all of one kind"):
        with_inserted(network, network.blocks, 1)


def test_positions_of_long_texts():
    plain = rotary_frequencies(1e4, 8)
    dynamic = RotaryScaling("dynamic", 3.0, original_context=10)
    found = rotary_frequencies(1e4, 8, dynamic, jnp.array([4, 10, 20]))
    np.testing.assert_allclose(found[:2], [plain, plain], rtol=1e-5)
    # Twice as long: the base is (3 · 2 - 2) ** (8 / 6) times as large.
    np.testing.assert_allclose(
        found[2], (1e4 * 4 ** (8 / 6)) ** (-np.arange(0, 8, 2) / 8), rtol=1e-5
    )
    long = RotaryScaling("longrope", 2.0, original_context=10, short=(1.0,) * 4, long=(2.0,) * 4)
    found = rotary_frequencies(1e4, 8, long, jnp.array([10, 11]))
    np.testing.assert_allclose(found, [plain, plain / 2], rtol=1e-6)
    # A single pair turns by one radian, whatever the base.
    np.testing.assert_array_equal(
        rotary_frequencies(1e4, 2, dynamic, jnp.array([4, 20])), [[1.0], [1.0]]
    )


@pytest.mark.parametrize(
    "scaling",
    [
        RotaryScaling("dynamic", 3.0, original_context=6),
        RotaryScaling("longrope", 1.0, original_context=6, short=(1.0,) * 2, long=(3.0,) * 2),
    ],
    ids=lambda scaling: scaling.kind,
)
def test_texts_in_one_row_are_scaled_by_their_own_lengths(scaling, key):
    shape = Architecture(13, 32, 8, 1, 2, rotary_scaling=scaling)
    network = Decoder(shape, key=key, deviation=0.5)
    tokens = jax.random.randint(key, (1, 20), 0, 13)
    # Of 4 tokens, within the original context, and of 13, beyond it; three are of no text.
    lengths = (4, 13)
    text = jnp.asarray([[1] * 4 + [2] * 13 + [0] * 3])
    together = np.asarray(jax.jit(lambda n, *x: n.packed_hidden(*x))(network, tokens, text))[0]
    start = 0
    for length in lengths:
        alone = network.hidden(tokens[:, start : start + length])[0]
        np.testing.assert_allclose(together[start : start + length], alone, rtol=1e-4, atol=1e-5)
        start += length
    # It would have been noticed: read as one text, the first is turned otherwise.
    whole = np.asarray(network.hidden(tokens))[0]
    assert np.abs(whole[:4] - together[:4]).max() > 1e-2


def test_scaled_rotary_positions():
    plain = rotary_frequencies(1e4, 64)
    linear = rotary_frequencies(1e4, 64, RotaryScaling("linear", 4.0))
    np.testing.assert_allclose(linear, plain / 4)
    scaling = RotaryScaling("llama3", 8.0, original_context=64)
    llama3 = rotary_frequencies(1e4, 64, scaling)
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(llama3[wavelength < 16], plain[wavelength < 16])
    np.testing.assert_allclose(llama3[wavelength > 64], plain[wavelength > 64] / 8)
    between = (wavelength > 16) & (wavelength < 64)
    assert between.any()
    assert np.all((llama3 < plain)[between]) and np.all((llama3 > plain / 8)[between])


def test_sizes_that_do_not_fit_are_refused(key):
    with pytest.raises(SpecificationError, match="4 heads cannot share 3"):
        Architecture(5, 8, 16, 1, 4, key_value_heads=3)
    with pytest.raises(SpecificationError, match="width 3 is odd"):
        Architecture(5, 8, 6, 1, 2)
    with pytest.raises(SpecificationError, match="at least one of layers"):
        Architecture(5, 8, 16, 0, 4)
    with pytest.raises(SpecificationError, match="17 tokens do not fit into a context of 16"):
        decoder(LLAMA, key).logits(texts(key, 1, 17))
