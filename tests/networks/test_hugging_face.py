"""Models in Hugging Face's form: round trips, equal logits against transformers, and bad files."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from headwater.core.errors import DataError, SpecificationError
from headwater.core.records import Completions
from headwater.networks.decoders.architecture import Architecture, gpt2
from headwater.networks.decoders.changes import with_precision
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import (
    ending_tokens,
    read_architecture,
    read_decoder,
    read_reward_model,
    write_decoder,
    write_reward_model,
)
from headwater.networks.pretrained.families import FAMILIES
from headwater.networks.reward_head import WithReward
from headwater.networks.rotary import RotaryScaling

GEMMA = {"tied": True, "centred_norms": True, "feed_forward": "geglu", "embedding_scale": 4.0}
OLMO = {"norm_places": "after", "query_norm": "whole"}
YARN = RotaryScaling("yarn", 4.0, 1.0, 32.0, 16, 1.2)
SHAPES = {
    "llama": Architecture(13, 16, 16, 2, 4, hidden=24, key_value_heads=2, epsilon=1e-6),
    "llama with biases": Architecture(
        13, 16, 16, 1, 2, query_bias=True, output_bias=True, feed_forward_bias=True
    ),
    "llama tied, wide heads": Architecture(13, 16, 12, 3, 3, head_width=8, tied=True),
    "llama scaled": Architecture(
        13,
        64,
        16,
        1,
        1,
        rotary_base=500_000.0,
        rotary_scaling=RotaryScaling("llama3", 8.0, original_context=16),
    ),
    "llama linear": Architecture(13, 64, 16, 1, 1, rotary_scaling=RotaryScaling("linear", 4.0)),
    "qwen2": Architecture(13, 16, 16, 2, 4, key_value_heads=1, query_bias=True, tied=True),
    "qwen2, wide heads": Architecture(13, 16, 12, 1, 3, head_width=8, query_bias=True),
    "mistral": Architecture(13, 16, 16, 2, 4, key_value_heads=2, window=5),
    "mistral, dynamic": Architecture(
        13,
        32,
        16,
        1,
        2,
        rotary_scaling=RotaryScaling("dynamic", 2.0, original_context=16),
        window=9,
    ),
    "qwen2, some windows": Architecture(
        13, 16, 16, 3, 4, query_bias=True, window=4, local_layers=(False, True, False)
    ),
    "qwen3": Architecture(13, 32, 16, 2, 2, head_width=6, query_norm="head", rotary_scaling=YARN),
    "gemma": Architecture(13, 16, 16, 2, 4, **GEMMA),
    "gemma2": Architecture(
        *(13, 16, 16, 3, 4),
        **GEMMA,
        norm_places="both",
        attention_scale=0.2,
        attention_bound=3.0,
        logit_bound=5.0,
        window=5,
        local_layers=(True, False, True),
    ),
    "gemma3_text": Architecture(
        *(13, 16, 16, 3, 4),
        **GEMMA,
        norm_places="both",
        query_norm="head",
        window=5,
        local_layers=(True, False, True),
        rotary_base=1e6,
        rotary_scaling=RotaryScaling("linear", 8.0),
        local_rotary_base=1e4,
    ),
    "phi3": Architecture(
        13,
        64,
        16,
        1,
        2,
        key_value_heads=1,
        rotary_width=6,
        rotary_scaling=RotaryScaling(
            "longrope",
            4.0,
            original_context=16,
            magnitude=1.1,
            short=(1.0, 1.5, 2.0),
            long=(2.0, 3.0, 5.0),
        ),
    ),
    "olmo": Architecture(13, 16, 16, 2, 2, norm="weightless", query_bound=1.0),
    "olmo2": Architecture(13, 16, 16, 2, 2, key_value_heads=1, **OLMO),
    "olmo3": Architecture(
        *(13, 32, 16, 2, 2),
        **OLMO,
        window=6,
        local_layers=(True, False),
        rotary_base=5e5,
        rotary_scaling=YARN,
        local_rotary_base=5e5,
    ),
    "smollm3": Architecture(
        *(13, 16, 16, 3, 4),
        tied=True,
        rotary_layers=(True, False, True),
        window=5,
        local_layers=(False, True, False),
    ),
    "granite": Architecture(
        *(13, 16, 16, 2, 2),
        embedding_scale=3.0,
        residual_scale=0.3,
        attention_scale=0.1,
        logit_divisor=4.0,
    ),
    "gpt2": gpt2(13, 16, 16, 2, 4),
    "gpt2 untied": gpt2(13, 16, 24, 3, 2, hidden=40, tied=False),
}
EVERY = pytest.mark.parametrize("name", SHAPES)


@eqx.filter_jit
def _drawn(architecture, key):
    network = Decoder(architecture, key=key, deviation=0.3)
    leaves, tree = jax.tree.flatten(network)
    # Norms and biases too, or a wrong place for them would not be noticed.
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.2 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]
    return jax.tree.unflatten(tree, noisy)


@eqx.filter_jit
def logits(network, tokens):
    return network.logits(tokens)


@EVERY
def test_what_is_written_is_read_again(name, key, tmp_path):
    network = _drawn(SHAPES[name], key)
    write_decoder(network, tmp_path / "model", end=3)
    assert eqx.tree_equal(read_decoder(tmp_path / "model"), network)
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    assert name.startswith(fields["model_type"])
    assert FAMILIES.keys() <= {shape.split(",")[0].split()[0] for shape in SHAPES}
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text()) == {
        "eos_token_id": 3
    }
    with pytest.raises(DataError, match="there is a model already"):
        write_decoder(network, tmp_path / "model")


def test_bfloat16_and_copied_tokenizers(key, tmp_path):
    network = with_precision(_drawn(SHAPES["llama"], key), "bfloat16")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "tokenizer.json").write_text("{}")
    (tmp_path / "old" / "other.txt").write_text("{}")
    write_decoder(network, tmp_path / "new", tokenizer=tmp_path / "old")
    again = read_decoder(tmp_path / "new")
    assert again.architecture.dtype == "bfloat16" and eqx.tree_equal(again, network)
    single = read_decoder(tmp_path / "new", dtype="bfloat16", stored="float32")
    assert single.embedding.dtype == jnp.float32 and single.architecture.dtype == "bfloat16"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_what_a_model_ends_with_and_is_stored_in_survives_training(key, tmp_path):
    network = Decoder(SHAPES["qwen2"], key=key)
    write_decoder(network, tmp_path / "base")
    for name, changes in (
        ("config.json", {"eos_token_id": [2, 5], "bos_token_id": 1, "dtype": "bfloat16"}),
        ("generation_config.json", {"eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20}),
    ):
        path = tmp_path / "base" / name
        fields = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**fields, **changes}))
    assert ending_tokens(tmp_path / "base") == (2, 5, 7)
    write_decoder(network, tmp_path / "trained", tokenizer=tmp_path / "base", end=2)
    fields = json.loads((tmp_path / "trained" / "config.json").read_text())
    assert (fields["eos_token_id"], fields["bos_token_id"]) == ([2, 5], 1)
    assert fields["dtype"] == fields["torch_dtype"] == "bfloat16"
    generation = json.loads((tmp_path / "trained" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20}
    from safetensors import safe_open

    with safe_open(tmp_path / "trained" / "model.safetensors", "np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}
    assert ending_tokens(tmp_path / "nowhere") == ()


def test_every_token_that_ends_a_response_is_written(key, tmp_path):
    network = _drawn(SHAPES["llama"], key)
    for number, (end, stored) in enumerate([((3, 5), [3, 5]), ((3,), 3), (4, 4), ((), None)]):
        place = tmp_path / str(number)
        write_decoder(network, place, end=end)
        assert json.loads((place / "config.json").read_text())["eos_token_id"] == stored
        assert (place / "generation_config.json").exists() == (stored is not None)
        assert ending_tokens(place) == (end if isinstance(end, tuple) else (end,))


@EVERY
def test_transformers_reads_what_is_written(name, key, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    network = _drawn(SHAPES[name], key)
    write_decoder(network, tmp_path, end=3)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = np.asarray(jax.random.randint(key, (3, 16), 0, 13))
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits(network, jnp.asarray(tokens)), expected, atol=2e-4)


def _theirs(transformers):
    llama, qwen, mistral = (
        {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, **heads}
        for heads in (
            {"num_attention_heads": 6, "num_key_value_heads": 3},
            {"num_attention_heads": 4, "num_key_value_heads": 2},
            {"num_attention_heads": 2, "num_key_value_heads": 1},
        )
    )
    yarn = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 8,
        "rope_theta": 1e4,
    }
    sizes = {"vocab_size": 37, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2}
    small = {"vocab_size": 37, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
    return {
        "llama": transformers.LlamaConfig(**sizes, **llama, rms_norm_eps=1e-3),
        "llama tied": transformers.LlamaConfig(**sizes, **llama, tie_word_embeddings=True),
        "qwen2": transformers.Qwen2Config(**sizes, **qwen),
        "qwen2, wide heads": transformers.Qwen2Config(**sizes, **qwen, head_dim=8),
        "mistral": transformers.MistralConfig(**sizes, **mistral, sliding_window=None),
        "mistral, window": transformers.MistralConfig(**sizes, **mistral, sliding_window=7),
        "qwen3": transformers.Qwen3Config(
            **sizes,
            **qwen,
            head_dim=10,
            rope_parameters=yarn | {"mscale": 2.0, "mscale_all_dim": 1.0},
        ),
        "gemma": transformers.GemmaConfig(**sizes, **qwen, head_dim=8),
        "gemma2": transformers.Gemma2Config(
            **sizes, **qwen, head_dim=8, sliding_window=6, query_pre_attn_scalar=12
        ),
        "gemma3": transformers.Gemma3TextConfig(
            **sizes, **{**qwen, "num_hidden_layers": 7}, head_dim=8, sliding_window=6
        ),
        "phi3": transformers.Phi3Config(
            **sizes,
            **{**qwen, "hidden_size": 32},
            pad_token_id=0,
            original_max_position_embeddings=16,
            sliding_window=20,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.1, 1.3],
                "long_factor": [1.0, 2.0, 4.0],
            },
        ),
        "olmo": transformers.OlmoConfig(**sizes, **qwen, clip_qkv=0.5),
        "olmo2": transformers.Olmo2Config(**sizes, **qwen, rms_norm_eps=1e-4),
        "olmo3": transformers.Olmo3Config(
            **sizes,
            **{**qwen, "num_hidden_layers": 5},
            sliding_window=6,
            rope_parameters={"full_attention": {**yarn, "rope_theta": 5e5}},
        ),
        "smollm3": transformers.SmolLM3Config(
            **sizes,
            **{**qwen, "num_hidden_layers": 5},
            pad_token_id=0,
            use_sliding_window=True,
            sliding_window=6,
        ),
        "granite": transformers.GraniteConfig(
            **sizes,
            **qwen,
            embedding_multiplier=12.0,
            logits_scaling=8.0,
            residual_multiplier=0.22,
            attention_multiplier=0.05,
        ),
        "gpt2": transformers.GPT2Config(**small, n_embd=24, n_layer=3, n_head=3),
        "gpt2 narrow": transformers.GPT2Config(**small, n_embd=16, n_layer=1, n_head=1, n_inner=8),
    }


THEIRS = (
    "llama",
    "llama tied",
    "qwen2",
    "qwen2, wide heads",
    "mistral",
    "mistral, window",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo",
    "olmo2",
    "olmo3",
    "smollm3",
    "granite",
    "gpt2",
    "gpt2 narrow",
)


@pytest.mark.parametrize("name", THEIRS)
def test_models_of_transformers_are_read(name, key, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(_theirs(transformers)[name])
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    # In several files, as large models are.
    model.save_pretrained(tmp_path, max_shard_size="10KB" if name == "llama" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (name == "llama")
    network = read_decoder(tmp_path)
    tokens = np.asarray(jax.random.randint(key, (3, 32), 0, 37))
    with torch.no_grad():
        output = model.eval()(torch.tensor(tokens), output_hidden_states=True)
    np.testing.assert_allclose(
        logits(network, jnp.asarray(tokens)), output.logits.numpy(), atol=2e-4
    )
    np.testing.assert_allclose(
        network.hidden(jnp.asarray(tokens)), output.hidden_states[-1].numpy(), atol=2e-4
    )


# Bad files --------------------------------------------------------------------------------------


@pytest.fixture
def model(key, tmp_path):
    write_decoder(_drawn(SHAPES["llama"], key), tmp_path / "model")
    return tmp_path / "model"


def _change_config(model, **fields):
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _change_tensors(model, change):
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


QUERY = "model.layers.1.self_attn.q_proj.weight"


def test_missing_extra_and_wrong_tensors(model):
    _change_tensors(model, lambda t: t.update({QUERY: np.zeros((15, 16), np.float32)}))
    message = rf"model.safetensors: tensor '{QUERY}' is \[15, 16\] where config.json asks for \[16"
    with pytest.raises(DataError, match=message):
        read_decoder(model)
    _change_tensors(model, lambda t: t.pop(QUERY))
    with pytest.raises(DataError, match=f"model.safetensors: tensor '{QUERY}' is missing"):
        read_decoder(model)


def test_left_over_and_quantised_tensors(model):
    _change_tensors(model, lambda t: t.update({"score.weight": np.zeros(3, np.float32)}))
    with pytest.raises(DataError, match=r"tensor 'score.weight' is left over"):
        read_decoder(model)
    quantised = {"lm_head.weight": np.zeros((13, 16), np.int8)}
    _change_tensors(model, lambda t: t.update(quantised))
    with pytest.raises(DataError, match=r"'lm_head.weight' is of type int8, which is quantised"):
        read_decoder(model)


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_went_wrong(model, value, dtype):
    def spoil(tensors):
        tensors[QUERY] = tensors[QUERY].astype(dtype)
        tensors[QUERY][3, 2] = value

    _change_tensors(model, spoil)
    with pytest.raises(DataError, match=rf"tensor '{QUERY}' holds values that are not finite"):
        read_decoder(model)


def test_an_embedding_that_is_and_is_not_the_unembedding(model):
    _change_config(model, tie_word_embeddings=True)
    with pytest.raises(DataError, match=r"'lm_head.weight' differs from the embedding, although"):
        read_decoder(model)
    embedding = "model.embed_tokens.weight"
    _change_tensors(model, lambda t: t.update({"lm_head.weight": t[embedding]}))
    assert read_decoder(model).unembedding is None


def test_names_without_prefix_and_constants_among_the_weights(key, tmp_path):
    network = _drawn(SHAPES["gpt2"], key)
    write_decoder(network, tmp_path)

    def older(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = np.ones((1, 1, 16, 16), np.float32)

    _change_tensors(tmp_path, older)
    assert eqx.tree_equal(read_decoder(tmp_path), network)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "lama"}, "type 'lama' cannot be read: llama, mistral"),
        ({"model_type": "qwen9"}, "models of type 'qwen9' cannot be read: llama, "),
        (
            {"model_type": "mistral", "architectures": None, "sliding_window": 0},
            "'sliding_window' must be a positive integer",
        ),
        (
            {"model_type": "gpt2", "architectures": None, "n_embd": 16, "n_layer": 1, "n_head": 3},
            "field 'n_embd' is 16, which 3 heads \\('n_head'\\) cannot share",
        ),
        ({"rope_parameters": {"rope_theta": 0}}, "'rope_theta' must be positive, not 0"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "does not predict tokens"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu', which cannot be honoured: only 'silu'"),
        ({"num_hidden_layers": "two"}, "'num_hidden_layers' must be a positive integer, not 'two'"),
        ({"hidden_size": None}, "'hidden_size' must be a positive integer, not None"),
        ({"rope_parameters": {"rope_type": "axial"}}, "rotary positions of type 'axial'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "short_factor' must be a list of numb"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' is 0.5, which cannot be"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'rope_parameters' lacks 'factor'"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config' cannot be honoured"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
    ],
)
def test_configurations_that_cannot_be_honoured(model, fields, message):
    _change_config(model, **fields)
    with pytest.raises(DataError, match=message) as raised:
        read_architecture(model)
    assert str(raised.value).startswith(str(model / "config.json"))


def test_files_that_are_not_there(model):
    weights = model / "model.safetensors"
    with pytest.raises(DataError, match="there is no such directory of a model"):
        read_decoder(model / "nowhere")
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    with pytest.raises(DataError, match=r"model.safetensors: this safetensors file is truncated"):
        read_decoder(model)
    weights.unlink()
    with pytest.raises(DataError, match=r"model.safetensors is missing: a model needs it"):
        read_decoder(model)
    (model / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(DataError, match="are a pickle, which is never loaded"):
        read_decoder(model)
    table = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"model-00001-of-00002.safetensors is missing, which"):
        read_decoder(model)
    (model / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config.json: it cannot be read as JSON"):
        read_decoder(model)
    (model / "config.json").unlink()
    with pytest.raises(DataError, match=r"config.json is missing"):
        read_decoder(model)


def test_architectures_of_no_family(key, tmp_path):
    odd = dataclasses.replace(SHAPES["llama"], positions="learned")
    with pytest.raises(SpecificationError, match="no family of transformers has this architecture"):
        write_decoder(_drawn(odd, key), tmp_path)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_reward_models_go_to_transformers_and_back(name, key, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    decoder = _drawn(SHAPES[name], key)
    drawn = jax.random.normal(key, (decoder.width,))
    network = eqx.tree_at(lambda n: n.weights, WithReward(decoder), drawn)
    write_reward_model(network, tmp_path, end=3, padding=0)
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = np.asarray(jax.random.randint(key, (3, 16), 1, 13))
    length = np.asarray([16, 9, 4])[:, None]
    response = (np.arange(16) < length) & (np.arange(16) > 1)
    padded = np.where(np.arange(16) < length, tokens, 0)
    with torch.no_grad():
        expected = model(torch.tensor(padded)).logits.numpy()[:, 0]
    rate = jax.jit(lambda network, *data: network.rate(Completions(*data)))
    ours = rate(network, jnp.asarray(tokens), jnp.asarray(response))
    np.testing.assert_allclose(ours, expected, atol=2e-4)

    model.save_pretrained(tmp_path / "theirs")
    again = read_reward_model(tmp_path / "theirs")
    np.testing.assert_allclose(
        rate(again, jnp.asarray(tokens), jnp.asarray(response)), ours, atol=1e-5
    )


def test_reward_models_that_cannot_be(key, tmp_path):
    network = WithReward(_drawn(SHAPES["llama"], key))
    write_reward_model(network, tmp_path, end=3, padding=0)
    config = json.loads((tmp_path / "config.json").read_text())
    again = read_reward_model(tmp_path)
    assert again.network.unembedding is None and not np.any(again.weights)
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(DataError, match="tells 2 kinds of texts apart, but a reward is one number"):
        read_reward_model(tmp_path)
    granite = WithReward(_drawn(SHAPES["granite"], key))
    with pytest.raises(SpecificationError, match="no model of type granite that scores texts"):
        write_reward_model(granite, tmp_path / "granite", padding=0)
