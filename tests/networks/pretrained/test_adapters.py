"""Adapters in PEFT's form: against NumPy and against PEFT, both ways, and bad files."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from headwater.core.errors import DataError, SpecificationError
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import write_decoder
from headwater.networks.low_rank_adapters import Adapted
from headwater.networks.pretrained.adapters import (
    base_of,
    matrices_named,
    read_adapters,
    write_adapters,
)

LLAMA = Architecture(13, 16, 16, 2, 4, hidden=24, key_value_heads=2, epsilon=1e-6)
PHI3 = Architecture(13, 16, 16, 2, 2, hidden=24, key_value_heads=1, rotary_width=6)
GPT2 = gpt2(13, 16, 16, 2, 4)
QUERY, DOWN = "self_attn.q_proj", "mlp.down_proj"


@eqx.filter_jit
def _decoder(architecture, key):
    return Decoder(architecture, key=key, deviation=0.2)


@eqx.filter_jit
def _logits(network, tokens):
    return network.logits(tokens)


def _stored(folder, tensors, **fields):
    """Files as PEFT leaves them."""
    folder.mkdir(exist_ok=True)
    usual = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 6, "bias": "none"}
    text = json.dumps({**usual, "use_dora": False, "modules_to_save": None, **fields})
    (folder / "adapter_config.json").write_text(text)
    named = {f"base_model.model.{name}.weight": x for name, x in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    return folder


def _halves(seed, name, rank, fan_in, fan_out):
    draw = np.random.default_rng(seed)
    return {
        f"{name}.lora_A": draw.normal(size=(rank, fan_in)).astype(np.float32),
        f"{name}.lora_B": draw.normal(size=(fan_out, rank)).astype(np.float32),
    }


def _product(tensors, name):
    """What PyTorch adds to a weight `[out, in]`, as `[in, out]` and unscaled."""
    return (tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"]).T


def test_adapters_of_some_layers_with_ranks_and_alphas_of_their_own(key, tmp_path):
    decoder = _decoder(LLAMA, key)
    names = [f"model.layers.0.{QUERY}", f"model.layers.1.{QUERY}", f"model.layers.1.{DOWN}"]
    tensors = {
        **_halves(0, names[0], 2, 16, 16),
        **_halves(1, names[1], 3, 16, 16),
        **_halves(2, names[2], 2, 24, 16),
    }
    patterns = {"rank_pattern": {"layers.1.self_attn.q_proj": 3}, "alpha_pattern": {"down_proj": 5}}
    found = read_adapters(_stored(tmp_path / "a", tensors, **patterns), decoder)
    blocks, before = found.merged().blocks, decoder.blocks
    for matrix, layer, scale, name in (
        ("query", 0, 6 / 2, names[0]),
        ("query", 1, 6 / 3, names[1]),
        ("down", 1, 5 / 2, names[2]),
    ):
        added = getattr(blocks, matrix).weight[layer] - getattr(before, matrix).weight[layer]
        np.testing.assert_allclose(added, scale * _product(tensors, name), rtol=1e-4, atol=1e-5)
    assert np.array_equal(blocks.down.weight[0], before.down.weight[0])
    assert blocks.value.weight is before.value.weight
    assert all(
        a is b for a, b in zip(jax.tree.leaves(found.without_adapters()), jax.tree.leaves(decoder))
    )
    # Over the root of the rank, and without the prefix of a model that has a head.
    short = {name.removeprefix("model."): x for name, x in tensors.items() if "layers.0" in name}
    rooted = read_adapters(_stored(tmp_path / "b", short, use_rslora=True), decoder).merged()
    added = rooted.blocks.query.weight[0] - before.query.weight[0]
    np.testing.assert_allclose(
        added, 6 / 2**0.5 * _product(tensors, names[0]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("architecture", "family", "name", "matrices", "widths"),
    [
        (GPT2, "gpt2", "transformer.h.{}.attn.c_attn", "query key value", (16, 16, 16)),
        (PHI3, "phi3", "model.layers.{}.mlp.gate_up_proj", "gate up", (24, 24)),
    ],
)
def test_matrices_that_are_stored_side_by_side(
    architecture, family, name, matrices, widths, key, tmp_path
):
    decoder = _decoder(architecture, key)
    tensors = {}
    for layer in range(2):
        tensors |= _halves(layer, name.format(layer), 2, 16, sum(widths))
    found = read_adapters(_stored(tmp_path / "a", tensors), decoder, family=family)
    start = 0
    for matrix, width in zip(matrices.split(), widths):
        old, new = (getattr(d.blocks, matrix).weight[1] for d in (decoder, found.merged()))
        whole = 3.0 * _product(tensors, name.format(1))
        np.testing.assert_allclose(new - old, whole[:, start : start + width], rtol=1e-4, atol=1e-5)
        start += width
    write_adapters(found, tmp_path / "b", base="here", family=family)
    again = read_adapters(tmp_path / "b", decoder, family=family).merged()
    for old, new in zip(jax.tree.leaves(found.merged()), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    # One block of the diagonal for each matrix.
    assert config["r"] == 2 * len(widths) and config["lora_alpha"] == 6 * len(widths)


def _shaken(decoder, rank, alpha, matrices):
    adapted = Adapted(decoder, key=jax.random.key(1), rank=rank, alpha=alpha, matrices=matrices)
    trained, rest = eqx.partition(adapted, adapted.trainable())
    draw = np.random.default_rng(rank)
    shaken = jax.tree.map(
        lambda x: jnp.asarray(0.3 * draw.normal(size=x.shape), jnp.float32), trained
    )
    return eqx.combine(shaken, rest)


def test_what_is_written_adds_up(key, tmp_path):
    decoder = _decoder(LLAMA, key)
    one = _shaken(decoder, 2, 3.0, ("query", "down"))
    other = _shaken(decoder, 3, 12.0, ("query",))
    write_adapters([one, other], tmp_path, base="models/here")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/here"
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["r"] + sum(config["rank_pattern"].values()) == 7
    stored = load_file(tmp_path / "adapter_model.safetensors")
    place = f"base_model.model.model.layers.1.{QUERY}.lora_{{}}.weight"
    assert stored[place.format("A")].shape == (5, 16)
    both = [
        n.merged().blocks.query.weight[1] - decoder.blocks.query.weight[1] for n in (one, other)
    ]
    alpha = {"q_proj": config["lora_alpha"], **config["alpha_pattern"]}["q_proj"]
    added = alpha / 5 * (stored[place.format("B")] @ stored[place.format("A")]).T
    np.testing.assert_allclose(added, sum(both), rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="there are adapters already"):
        write_adapters(one, tmp_path, base="models/here")


def test_names_of_matrices(key):
    decoder, small = _decoder(GPT2, key), _decoder(LLAMA, key)
    assert matrices_named(["c_attn"], decoder, family="gpt2") == ("query", "key", "value")
    assert matrices_named(["c_proj"], decoder, family="gpt2") == ("output", "down")
    assert matrices_named(["attn.c_proj", "up"], decoder, family="gpt2") == ("output", "up")
    assert matrices_named(["v_proj", "query"], small, family="llama") == ("value", "query")
    assert len(matrices_named(["all-linear"], small)) == 7
    assert len(matrices_named(["all-linear"], decoder)) == 6
    with pytest.raises(SpecificationError, match=r"unknown target module 'q_prj'.*q_proj"):
        matrices_named(["q_prj"], small, family="llama")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"use_dora": True}, "field 'use_dora' is True, which cannot be honoured: merge these"),
        ({"bias": "all"}, "field 'bias' is 'all', which cannot be honoured: only 'none'"),
        ({"peft_type": "IA3"}, "field 'peft_type' is 'IA3', .* only 'LORA'"),
        ({"modules_to_save": ["lm_head"]}, "field 'modules_to_save' is .'lm_head'., which cannot"),
        ({"init_lora_weights": "pissa"}, "field 'init_lora_weights' is 'pissa', which cannot"),
        ({"lora_bias": True}, "field 'lora_bias' is True, which cannot"),
        ({"kasa_config": {"a": 1}}, "field 'kasa_config' is .*, which cannot"),
        ({"r": 4}, "the adapter of 'model.layers.0.self_attn.q_proj' has rank 2 where .* says 4"),
        ({"lora_alpha": 0}, "field 'lora_alpha' is 0, with which adapters say nothing"),
        ({"lora_alpha": 1e999}, "field 'lora_alpha' is inf, with which adapters say nothing"),
        ({"lora_alpha": "six"}, "field 'lora_alpha' must be a number, not 'six'"),
        ({"rank_pattern": {".*q_proj": 2}}, "'rank_pattern' has the pattern '.\\*q_proj', which"),
        ({"rank_pattern": {"q_proj": -2}}, "'rank_pattern.q_proj' must be a positive number"),
    ],
)
def test_settings_that_cannot_be_honoured(fields, error, key, tmp_path):
    tensors = _halves(0, f"model.layers.0.{QUERY}", 2, 16, 16)
    with pytest.raises(DataError, match=error):
        read_adapters(_stored(tmp_path, tensors, **fields), _decoder(LLAMA, key))


def test_weights_that_do_not_fit(key, tmp_path):
    decoder, name = _decoder(LLAMA, key), f"model.layers.0.{QUERY}"
    good = _halves(0, name, 2, 16, 16)
    half = {f"{name}.lora_A": good[f"{name}.lora_A"]}
    cases = (
        ({}, "there is no adapter in it"),
        (half, f"tensor '{name}.lora_B.weight' is missing beside its other half"),
        (_halves(0, name, 2, 16, 8), "halves of .2, 16. and .8, 2. where the model asks for"),
        (
            {**good, f"{name}.lora_magnitude_vector": np.ones(16, np.float32)},
            "'.*vector.weight' ca",
        ),
        (_halves(0, "lm_head", 2, 16, 13), "'model.lm_head.lora_A.weight' cannot be honoured"),
        (_halves(0, f"model.layers.7.{QUERY}", 2, 16, 16), "'model.layers.7.* cannot be hono"),
        ({n: x * np.float32(np.nan) for n, x in good.items()}, "holds values that are not finite"),
        ({n: x.astype(np.int8) for n, x in good.items()}, "is of type int8: save it in float32"),
    )
    for tensors, error in cases:
        with pytest.raises(DataError, match=error):
            read_adapters(_stored(tmp_path, tensors), decoder)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="truncated or corrupt"):
        read_adapters(tmp_path, decoder)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"adapter_model\.safetensors is missing"):
        read_adapters(tmp_path, decoder)
    with pytest.raises(DataError, match=r"adapter_config\.json is missing"):
        read_adapters(tmp_path / "nowhere", decoder)


def test_the_model_that_adapters_are_of(key, tmp_path):
    write_decoder(_decoder(LLAMA, key), tmp_path / "base")
    own = _stored(tmp_path / "a", {}, base_model_name_or_path=str(tmp_path / "base"))
    assert base_of(own) == tmp_path / "base"
    named = _stored(tmp_path / "b", {}, base_model_name_or_path="someone/something")
    with pytest.raises(DataError, match="the model 'someone/something' that these adapters"):
        base_of(named)
    beside = _stored(tmp_path / "base", {}, base_model_name_or_path="someone/something")
    assert base_of(beside) == tmp_path / "base"


# PEFT asks transformers for what is called otherwise by now, and sets what it is told to set.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("architecture", "family"), [(LLAMA, "llama"), (GPT2, "gpt2"), (PHI3, "phi3")]
)
def test_peft_computes_the_same_both_ways(architecture, family, key, tmp_path):
    peft = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    decoder = _decoder(architecture, key)
    write_decoder(decoder, tmp_path / "base")
    load = lambda: transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    tokens = np.arange(24).reshape(2, 12) % 13

    def theirs(model):
        with torch.no_grad():
            return model(torch.tensor(tokens)).logits.numpy()

    matrices = ("query", "value", "output", "down", "up")
    ours = _shaken(decoder, 2, 3.0, matrices)
    write_adapters(ours, tmp_path / "ours", base=tmp_path / "base", family=family)
    model = peft.PeftModel.from_pretrained(load(), tmp_path / "ours").eval()
    expected = theirs(model)
    assert np.abs(expected - _logits(decoder, tokens)).max() > 0.1
    np.testing.assert_allclose(_logits(ours, tokens), expected, atol=2e-4)

    owns = {"llama": "layers.1.self_attn.q_proj", "gpt2": "h.1.attn.c_attn"}
    own = owns.get(family, "layers.1.self_attn.qkv_proj")
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=4,
        target_modules="all-linear",
        use_rslora=True,
        init_lora_weights=False,
        rank_pattern={own: 5},
        alpha_pattern={"mlp.c_proj" if family == "gpt2" else "down_proj": 7},
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(load(), settings).eval()
    with torch.no_grad():
        # What is drawn for B by itself is too large for numbers of float32 to be compared.
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.3)
    model.save_pretrained(tmp_path / "theirs")
    found = read_adapters(tmp_path / "theirs", decoder, family=family)
    np.testing.assert_allclose(_logits(found, tokens), theirs(model), atol=2e-4)
    assert base_of(tmp_path / "theirs") == tmp_path / "base"
