"""Language models in Hugging Face's form: a directory with `config.json` and safetensors."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError, SpecificationError
from headwater.core.stored_size import ALWAYS
from headwater.networks.decoder import Architecture, Decoder, Precision, RotaryScaling

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GENERATION = "generation_config.json"
_STORED_TYPES = ("float32", "bfloat16", "float16")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What belongs to a tokenizer and is copied with a model."""


class Tensor(NamedTuple):
    """Where a stored tensor goes.

    **Arguments:** `name`: in the file, `{layer}` standing for its number; `places`: the arrays of a
    `Decoder` that it holds, side by side along their last axis; `transposed`: PyTorch's linear
    layers store `[out, in]`.
    """

    name: str
    places: tuple[str, ...]
    transposed: bool = False


_LLAMA = (
    Tensor("model.embed_tokens.weight", ("embedding",)),
    Tensor("model.layers.{layer}.input_layernorm.weight", ("blocks.attention_norm.scale",)),
    *(
        tensor
        for stored, ours in (
            ("self_attn.q_proj", "query"),
            ("self_attn.k_proj", "key"),
            ("self_attn.v_proj", "value"),
            ("self_attn.o_proj", "output"),
            ("mlp.gate_proj", "gate"),
            ("mlp.up_proj", "up"),
            ("mlp.down_proj", "down"),
        )
        for tensor in (
            Tensor(f"model.layers.{{layer}}.{stored}.weight", (f"blocks.{ours}.weight",), True),
            Tensor(f"model.layers.{{layer}}.{stored}.bias", (f"blocks.{ours}.bias",)),
        )
    ),
    Tensor(
        "model.layers.{layer}.post_attention_layernorm.weight", ("blocks.feed_forward_norm.scale",)
    ),
    Tensor("model.norm.weight", ("final_norm.scale",)),
    Tensor("lm_head.weight", ("unembedding",)),
)

_GPT2 = (
    Tensor("transformer.wte.weight", ("embedding",)),
    Tensor("transformer.wpe.weight", ("position_embedding",)),
    Tensor("transformer.h.{layer}.ln_1.weight", ("blocks.attention_norm.scale",)),
    Tensor("transformer.h.{layer}.ln_1.bias", ("blocks.attention_norm.offset",)),
    *(
        Tensor(
            f"transformer.h.{{layer}}.{stored}.{kind}", tuple(f"blocks.{o}.{kind}" for o in ours)
        )
        for stored, ours in (
            ("attn.c_attn", ("query", "key", "value")),
            ("attn.c_proj", ("output",)),
            ("mlp.c_fc", ("up",)),
            ("mlp.c_proj", ("down",)),
        )
        for kind in ("weight", "bias")
    ),
    Tensor("transformer.h.{layer}.ln_2.weight", ("blocks.feed_forward_norm.scale",)),
    Tensor("transformer.h.{layer}.ln_2.bias", ("blocks.feed_forward_norm.offset",)),
    Tensor("transformer.ln_f.weight", ("final_norm.scale",)),
    Tensor("transformer.ln_f.bias", ("final_norm.offset",)),
    Tensor("lm_head.weight", ("unembedding",)),
)

_NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Constants that older versions stored among the weights."""


class _Config:
    """The fields of a `config.json`, which complain by name."""

    def __init__(self, fields: dict[str, Any]):
        self.fields = fields

    def positive(self, name: str, default: int | None = None) -> int:
        value = self.fields.get(name, default)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"field '{name}' must be a positive integer, not {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.fields.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise DataError(f"field '{name}' must be a number, not {value!r}")
        return float(value)

    def require(self, name: str, *allowed: Any) -> None:
        """The first allowed value is what a missing field means."""
        value = self.fields.get(name, allowed[0])
        if value not in allowed:
            raise DataError(
                f"field '{name}' is {value!r}, which cannot be honoured: only "
                f"{' or '.join(map(repr, allowed))}"
            )

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise DataError(f"field '{name}' must be true or false, not {value!r}")
        return value


def _llama(config: _Config) -> dict[str, Any]:
    config.require("hidden_act", "silu", "swish")
    config.require("partial_rotary_factor", 1.0, 1)
    biased = config.flag("attention_bias")
    base, scaling = _rotary(config)
    return {
        "vocabulary": config.positive("vocab_size"),
        "context": config.positive("max_position_embeddings", 2048),
        "width": config.positive("hidden_size"),
        "layers": config.positive("num_hidden_layers"),
        "heads": config.positive("num_attention_heads"),
        "key_value_heads": config.positive(
            "num_key_value_heads", config.positive("num_attention_heads")
        ),
        "head_width": config.positive(
            "head_dim", config.positive("hidden_size") // config.positive("num_attention_heads")
        ),
        "hidden": config.positive("intermediate_size"),
        "tied": config.flag("tie_word_embeddings"),
        "rotary_base": base,
        "rotary_scaling": scaling,
        "epsilon": config.number("rms_norm_eps", 1e-6),
        "query_bias": biased,
        "output_bias": biased,
        "feed_forward_bias": config.flag("mlp_bias"),
    }


_NO_BIASES = {"query_bias": False, "output_bias": False, "feed_forward_bias": False}
"""Of families that have none, whatever their configuration says."""


def _mistral(config: _Config) -> dict[str, Any]:
    window = None
    # Where nothing is said, transformers takes 4,096.
    if config.fields.get("sliding_window", 4096) is not None:
        window = config.positive("sliding_window", 4096)
    return {**_llama(config), **_NO_BIASES, "window": window}


def _qwen2(config: _Config) -> dict[str, Any]:
    config.require("use_sliding_window", False)
    return {**_llama(config), **_NO_BIASES, "query_bias": True}


def _rotary(config: _Config) -> tuple[float, RotaryScaling | None]:
    """Both ways of saying it: `rope_parameters`, or `rope_theta` with `rope_scaling`."""
    name = "rope_parameters" if config.fields.get("rope_parameters") else "rope_scaling"
    given = config.fields.get(name) or {}
    if not isinstance(given, dict):
        raise DataError(f"field '{name}' must be an object, not {given!r}")
    inner = _Config({f"{name}.{key}": value for key, value in given.items()})
    base = inner.number(f"{name}.rope_theta", config.number("rope_theta", 10_000.0))
    if not base > 0.0:
        raise DataError(f"field 'rope_theta' must be positive, not {base:g}")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return base, None
    if kind not in ("linear", "llama3"):
        raise DataError(
            f"field '{name}' asks for rotary positions of type {kind!r}, which cannot be honoured: "
            "only 'default', 'linear' and 'llama3'"
        )
    if "factor" not in given:
        raise DataError(f"field '{name}' lacks 'factor'")
    factor = inner.number(f"{name}.factor", 1.0)
    if kind == "linear":
        return base, RotaryScaling("linear", factor)
    return base, RotaryScaling(
        "llama3",
        factor,
        inner.number(f"{name}.low_freq_factor", 1.0),
        inner.number(f"{name}.high_freq_factor", 4.0),
        inner.positive(f"{name}.original_max_position_embeddings", 8192),
    )


def _gpt2(config: _Config) -> dict[str, Any]:
    config.require("activation_function", "gelu_new", "gelu_pytorch_tanh")
    config.require("scale_attn_weights", True)
    config.require("scale_attn_by_inverse_layer_idx", False)
    config.require("add_cross_attention", False)
    width = config.positive("n_embd")
    return {
        "vocabulary": config.positive("vocab_size"),
        "context": config.positive("n_positions", config.fields.get("n_ctx") or 1024),
        "width": width,
        "layers": config.positive("n_layer"),
        "heads": config.positive("n_head"),
        "hidden": config.positive("n_inner", 4 * width),
        "norm": "layer",
        "positions": "learned",
        "feed_forward": "gelu",
        "tied": config.flag("tie_word_embeddings", True),
        "epsilon": config.number("layer_norm_epsilon", 1e-5),
        "query_bias": True,
        "output_bias": True,
        "feed_forward_bias": True,
    }


def _to_llama(a: Architecture) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": a.rotary_base, "rope_type": "default"}
    scaling = a.rotary_scaling
    if scaling is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.original_context,
            }
    # Version 5 of transformers reads `rope_parameters`, earlier ones the other two.
    older = None if scaling is None else {k: v for k, v in rope.items() if k != "rope_theta"}
    return {
        "vocab_size": a.vocabulary,
        "max_position_embeddings": a.context,
        "hidden_size": a.width,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.key_value_heads,
        "head_dim": a.head_width,
        "intermediate_size": a.hidden,
        "tie_word_embeddings": a.tied,
        "rope_parameters": rope,
        "rope_theta": a.rotary_base,
        "rope_scaling": older,
        "rms_norm_eps": a.epsilon,
        "hidden_act": "silu",
        "attention_bias": a.output_bias,
        "mlp_bias": a.feed_forward_bias,
    }


def _without_biases(a: Architecture) -> dict[str, Any]:
    left_out = ("attention_bias", "mlp_bias")
    return {name: value for name, value in _to_llama(a).items() if name not in left_out}


def _to_mistral(a: Architecture) -> dict[str, Any]:
    return {**_without_biases(a), "sliding_window": a.window}


def _to_qwen2(a: Architecture) -> dict[str, Any]:
    return {**_without_biases(a), "use_sliding_window": False}


def _to_gpt2(a: Architecture) -> dict[str, Any]:
    return {
        "vocab_size": a.vocabulary,
        "n_positions": a.context,
        "n_embd": a.width,
        "n_layer": a.layers,
        "n_head": a.heads,
        "n_inner": a.hidden,
        "tie_word_embeddings": a.tied,
        "layer_norm_epsilon": a.epsilon,
        "activation_function": "gelu_new",
    }


class _Family(NamedTuple):
    """A kind of model: its name in `architectures`, its tensors, its configuration both ways."""

    name: str
    tensors: tuple[Tensor, ...]
    prefix: str
    read: Callable[[_Config], dict[str, Any]]
    write: Callable[[Architecture], dict[str, Any]]


_FAMILIES = {
    "llama": _Family("LlamaForCausalLM", _LLAMA, "model.", _llama, _to_llama),
    "mistral": _Family("MistralForCausalLM", _LLAMA, "model.", _mistral, _to_mistral),
    "qwen2": _Family("Qwen2ForCausalLM", _LLAMA, "model.", _qwen2, _to_qwen2),
    "gpt2": _Family("GPT2LMHeadModel", _GPT2, "transformer.", _gpt2, _to_gpt2),
}


# Reading ----------------------------------------------------------------------------------------


def read_architecture(directory: str | Path, dtype: Precision | None = None) -> Architecture:
    """What `config.json` in a directory describes.

    **Arguments:** `dtype`: what to compute in (default: bfloat16 where the model says so, float32
    otherwise). Raises `DataError` for a file that is missing or damaged, a kind of model that is
    not known, and fields that cannot be honoured.
    """
    return _described(Path(directory), dtype)[1]


def read_decoder(
    directory: str | Path, *, dtype: Precision | None = None, stored: Precision | None = None
) -> Decoder:
    """The model in a directory.

    **Arguments:** `dtype`: see `read_architecture`; `stored`: type of the arrays (default: that
    which is computed in).

    Raises `DataError`, naming the file and the tensor, for tensors that are missing, left over or
    of another shape, and as `read_architecture` does.
    """
    directory = Path(directory)
    family, architecture = _described(directory, dtype)
    kept = jnp.dtype(stored or architecture.dtype)
    shapes = eqx.filter_eval_shape(lambda key: Decoder(architecture, key=key), jax.random.key(0))
    found = _stored_tensors(directory, family.prefix)
    needed = sum(math.prod(leaf.shape) * kept.itemsize for leaf in jax.tree.leaves(shapes))
    stored_bytes = sum(file.stat().st_size for file in {place.file for place in found.values()})
    if needed > max(ALWAYS, 4 * stored_bytes):
        raise DataError(
            f"{directory / _CONFIG} describes {needed:,} bytes of weights, but {stored_bytes:,} "
            "are stored: take both from the same model"
        )
    arrays: dict[str, np.ndarray] = {}
    for tensor in family.tensors:
        if not all(_has(shapes, place) for place in tensor.places):
            continue
        for place in tensor.places:
            arrays[place] = np.empty(attrgetter(place)(shapes).shape, kept)
        for layer in range(architecture.layers) if "{layer}" in tensor.name else (None,):
            name = tensor.name.format(layer=layer)
            targets = [arrays[p] if layer is None else arrays[p][layer] for p in tensor.places]
            _fill(found, name, targets, tensor.transposed)
    _refuse_left_over(found, architecture, arrays)
    return _assembled(shapes, arrays)


def _has(tree: Any, place: str) -> bool:
    for name in place.split("."):
        tree = getattr(tree, name)
        if tree is None:
            return False
    return True


def _assembled(shapes: Decoder, arrays: Mapping[str, np.ndarray]) -> Decoder:
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    names = [jax.tree_util.keystr(path).lstrip(".") for path, _ in leaves]
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


class _Place(NamedTuple):
    """A stored tensor that is read when asked for."""

    file: Path
    name: str
    opened: Any


def _stored_tensors(directory: Path, prefix: str) -> dict[str, _Place]:
    """Every stored tensor by its name, with the family's prefix where it was left out."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, _Place] = {}
    for file in _weight_files(directory):
        try:
            opened = safe_open(file, framework="numpy")
            names = list(opened.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{file}: this safetensors file is truncated or corrupt ({error}): copy or "
                "download it again"
            ) from None
        for name in names:
            if name.endswith(_NOT_WEIGHTS):
                continue
            full = name if name.startswith((prefix, "lm_head.")) else prefix + name
            if full in found:
                raise DataError(f"{file}: tensor '{name}' is also in {found[full].file.name}")
            found[full] = _Place(file, name, opened)
    return found


def _weight_files(directory: Path) -> list[Path]:
    index, single = directory / _INDEX, directory / _WEIGHTS
    if single.is_file():
        return [single]
    if index.is_file():
        table = _json(index).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise DataError(f"{index}: 'weight_map' must say which file holds each tensor")
        files = [directory / Path(str(name)).name for name in sorted(set(table.values()))]
        for file in files:
            if not file.is_file():
                raise DataError(f"{file} is missing, which {_INDEX} names: download it too")
        return files
    pickled = sorted(directory.glob("*.bin")) + sorted(directory.glob("*.pt*"))
    if pickled:
        raise DataError(
            f"{pickled[0]}: weights in this form are a pickle, which is never loaded because it "
            f"can run code: save the model with safetensors (save_pretrained of transformers does)"
        )
    raise DataError(f"{single} is missing: a model needs it, or {_INDEX} and the files it names")


def _fill(found: dict[str, _Place], name: str, targets: list[np.ndarray], transposed: bool) -> None:
    """Reads one tensor into the arrays that it holds side by side; it is then no longer `found`."""
    place = found.pop(name, None)
    if place is None:
        files = {p.file.name for p in found.values()}
        where = " and ".join(sorted(files)) if files else "the weights"
        raise DataError(f"{where}: tensor '{name}' is missing, which {_CONFIG} asks for")
    widths = [target.shape[-1] for target in targets]
    expected = (*targets[0].shape[:-1], sum(widths))
    expected = expected[::-1] if transposed else expected
    shape = tuple(place.opened.get_slice(place.name).get_shape())
    if shape != expected:
        raise DataError(
            f"{place.file}: tensor '{place.name}' is {list(shape)} where {_CONFIG} asks for "
            f"{list(expected)}"
        )
    array = place.opened.get_tensor(place.name)
    if array.dtype.name not in ("float16", "float32", "float64", "bfloat16"):
        raise DataError(
            f"{place.file}: tensor '{place.name}' is of type {array.dtype}, which is quantised: "
            "save the model in bfloat16 or float32"
        )
    array = array.T if transposed else array
    start = 0
    for target, width in zip(targets, widths):
        target[...] = array[..., start : start + width]
        start += width


def _refuse_left_over(found: dict[str, _Place], architecture: Architecture, arrays) -> None:
    for name, place in sorted(found.items()):
        if name == "lm_head.weight" and architecture.tied:
            stored = place.opened.get_tensor(place.name).astype(np.float32)
            same = stored.shape == arrays["embedding"].shape
            if same and np.allclose(stored, arrays["embedding"].astype(np.float32), rtol=1e-2):
                continue
            raise DataError(
                f"{place.file}: tensor '{place.name}' differs from the embedding, although "
                f"{_CONFIG} says that they are one ('tie_word_embeddings')"
            )
        raise DataError(
            f"{place.file}: tensor '{place.name}' is left over: {_CONFIG} describes no such part"
        )


def _described(directory: Path, dtype: Precision | None) -> tuple[_Family, Architecture]:
    path = directory / _CONFIG
    if not directory.is_dir():
        raise DataError(f"{directory}: there is no such directory of a model: check the path")
    if not path.is_file():
        raise DataError(f"{path} is missing: a model's directory needs it beside its weights")
    fields = _json(path)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        # The nearest name would be of another architecture.
        raise DataError(
            f"{path}: models of type {str(kind)!r} cannot be read: {', '.join(_FAMILIES)} can"
        )
    family = _FAMILIES[kind]
    for name in fields.get("architectures") or [family.name]:
        # A class without a head holds no unembedding; if that is tied, nothing is missing.
        if name != family.name and not str(name).endswith("Model"):
            raise DataError(
                f"{path}: this is a {name}, which does not predict tokens: take a {family.name}"
            )
    if fields.get("quantization_config"):
        raise DataError(
            f"{path}: field 'quantization_config' cannot be honoured: save the model in bfloat16 "
            "or float32"
        )
    stored = fields.get("dtype", fields.get("torch_dtype"))
    precision = dtype or ("bfloat16" if stored == "bfloat16" else "float32")
    try:
        architecture = Architecture(**family.read(_Config(fields)), dtype=precision)
        # What could not be written after training is not read.
        _kind(architecture)
        return family, architecture
    except (DataError, SpecificationError) as error:
        raise DataError(f"{path}: {error}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: it cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: it must hold one JSON object")
    return found


# Writing ----------------------------------------------------------------------------------------


def write_decoder(
    decoder: Decoder,
    directory: str | Path,
    *,
    tokenizer: str | Path | None = None,
    end: int | tuple[int, ...] = (),
    overwrite: bool = False,
) -> None:
    """Writes a directory that `transformers` loads.

    **Arguments:** `tokenizer`: a directory whose tokenizer is copied, and where there is a model
    beside it, the tokens that it begins, ends and pads with, its settings of generation and the
    type that its weights are stored in; `end`: the token that ends a response, or all that do, for
    a model that is not made from another; `overwrite`: whether a model that is there may be
    replaced.

    Raises `SpecificationError` if no family has the architecture, `DataError` if there is a model
    already.
    """
    directory, architecture = Path(directory), decoder.architecture
    kind = _kind(architecture)
    family = _FAMILIES[kind]
    if (directory / _CONFIG).exists() and not overwrite:
        raise DataError(f"{directory}: there is a model already: choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    origin = None if tokenizer is None else Path(tokenizer)
    kept = _origin(origin)
    stored = kept.pop("dtype", None) or decoder.embedding.dtype.name
    ends = [end] if isinstance(end, int) else list(end)
    marked = (ends[0] if len(ends) == 1 else ends) if ends else None
    fields = {
        "architectures": [family.name],
        "model_type": kind,
        **family.write(architecture),
        "dtype": stored,
        "torch_dtype": stored,
        "bos_token_id": None,
        "eos_token_id": marked,
        **kept,
    }
    generation = _generation(origin) or ({} if not ends else {"eos_token_id": marked})
    from safetensors.numpy import save_file

    # What an earlier model was in would be read with the new one.
    for old in (directory / _INDEX, directory / _GENERATION):
        old.unlink(missing_ok=True)
    arrays = dict(_to_store(decoder, family, stored))
    save = lambda path: save_file(arrays, path, metadata={"format": "pt"})
    _replace(directory / _WEIGHTS, save)
    _write_json(directory / _CONFIG, fields)
    if generation:
        _write_json(directory / _GENERATION, generation)
    if origin is not None and origin.resolve() != directory.resolve():
        for name in TOKENIZER_FILES:
            if (origin / name).is_file():
                shutil.copyfile(origin / name, directory / name)


def ending_tokens(directory: str | Path) -> tuple[int, ...]:
    """Every token that ends a response, as `config.json` and `generation_config.json` say.

    Raises `DataError` for files that are damaged.
    """
    found: list[int] = []
    for name in (_CONFIG, _GENERATION):
        path = Path(directory) / name
        given = _json(path).get("eos_token_id") if path.is_file() else None
        for token in given if isinstance(given, list) else [given]:
            if isinstance(token, int) and not isinstance(token, bool) and token not in found:
                found.append(token)
    return tuple(found)


def _origin(directory: Path | None) -> dict[str, Any]:
    """What stays of the description of the model that another one is made from."""
    if directory is None or not (directory / _CONFIG).is_file():
        return {}
    fields = _json(directory / _CONFIG)
    marks = ("bos_token_id", "eos_token_id", "pad_token_id")
    kept = {name: fields[name] for name in marks if fields.get(name) is not None}
    dtype = fields.get("dtype", fields.get("torch_dtype"))
    return {**kept, "dtype": dtype} if dtype in _STORED_TYPES else kept


def _generation(directory: Path | None) -> dict[str, Any]:
    path = None if directory is None else directory / _GENERATION
    return _json(path) if path is not None and path.is_file() else {}


def _kind(a: Architecture) -> str:
    if a.experts:
        raise SpecificationError(
            f"a decoder with {a.experts} experts in each layer cannot be written for transformers "
            "yet: write one expert of each (`with_one_expert`)"
        )
    biases = (a.query_bias, a.output_bias, a.feed_forward_bias)
    if (a.norm, a.positions, a.feed_forward) == ("rms", "rotary", "swiglu"):
        if a.window is not None:
            if not any(biases):
                return "mistral"
        elif biases == (True, False, False):
            return "qwen2"
        elif a.query_bias == a.output_bias:
            return "llama"
    elif (a.norm, a.positions, a.feed_forward) == ("layer", "learned", "gelu"):
        whole = a.key_value_heads == a.heads and a.head_width * a.heads == a.width
        if all(biases) and whole and a.window is None:
            return "gpt2"
    raise SpecificationError(
        f"no family of transformers has this architecture ({a}): Llama has RMS norms, rotary "
        "positions and SwiGLU, Mistral besides a window and no bias, GPT-2 layer norms, learned "
        "positions, GELU and every bias"
    )


def _to_store(decoder: Decoder, family: _Family, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in family.tensors:
        if not all(_has(decoder, place) for place in tensor.places):
            continue
        arrays = [attrgetter(place)(decoder) for place in tensor.places]
        parts = [np.asarray(jnp.asarray(array, jnp.dtype(dtype))) for array in arrays]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        for layer in range(decoder.architecture.layers) if "{layer}" in tensor.name else (None,):
            array = whole if layer is None else whole[layer]
            yield (
                tensor.name.format(layer=layer),
                np.ascontiguousarray(array.T if tensor.transposed else array),
            )


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    text = json.dumps(fields, indent=2) + "\n"
    _replace(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Never leaves half a file under the final name."""
    temporary = path.with_name(path.name + ".partial")
    write(temporary)
    os.replace(temporary, path)
