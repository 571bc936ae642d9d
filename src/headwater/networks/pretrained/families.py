"""Families of language models: what their `config.json` says, and how their tensors are called.

A family is a list of parts, each of which reads some fields of a configuration into an
`Architecture`, and writes them. What a family cannot express it therefore does not read either:
`ModelFamily.describes` asks whether reading what is written gives the same again.
"""

import dataclasses
from typing import NamedTuple

from headwater.core.errors import DataError, SpecificationError
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.pretrained.configuration import (
    Config,
    Fields,
    Part,
    always,
    flag,
    layer_types,
    local_layers,
    number,
    only,
    optional,
    rotary,
    switched_windows,
    whole,
    window_everywhere,
    window_of,
    windows,
    windows_with_rotary,
)


class Tensor(NamedTuple):
    """Where a stored tensor goes.

    **Arguments:** `name`: in the file, `{layer}` standing for its number; `places`: the arrays of a
    `Decoder` that it holds, side by side along their last axis; `transposed`: PyTorch's linear
    layers store `[out, in]`.
    """

    name: str
    places: tuple[str, ...]
    transposed: bool = False


# Tensors ----------------------------------------------------------------------------------------


def _layer(stored: str, ours: str) -> tuple[Tensor, ...]:
    """A linear map of a layer, with a bias where there is one."""
    places = tuple(f"blocks.{each}" for each in ours.split(","))
    return (
        Tensor(f"model.layers.{{layer}}.{stored}.weight", _of(places, "weight"), True),
        Tensor(f"model.layers.{{layer}}.{stored}.bias", _of(places, "bias")),
    )


def _of(places: tuple[str, ...], part: str) -> tuple[str, ...]:
    return tuple(f"{place}.{part}" for place in places)


def _norm(stored: str, ours: str) -> Tensor:
    return Tensor(f"model.layers.{{layer}}.{stored}.weight", (f"blocks.{ours}.scale",))


_ENDS = (
    Tensor("model.embed_tokens.weight", ("embedding",)),
    Tensor("model.norm.weight", ("final_norm.scale",)),
    Tensor("lm_head.weight", ("unembedding",)),
    *_layer("self_attn.o_proj", "output"),
    *_layer("mlp.down_proj", "down"),
)
_APART = (
    *_layer("self_attn.q_proj", "query"),
    *_layer("self_attn.k_proj", "key"),
    *_layer("self_attn.v_proj", "value"),
    *_layer("mlp.gate_proj", "gate"),
    *_layer("mlp.up_proj", "up"),
)
_JOINED = (
    *_layer("self_attn.qkv_proj", "query,key,value"),
    *_layer("mlp.gate_up_proj", "gate,up"),
)
_NORMS_BEFORE = (
    _norm("input_layernorm", "attention_norm"),
    _norm("post_attention_layernorm", "feed_forward_norm"),
)
_NORMS_AFTER = (
    _norm("post_attention_layernorm", "attention_output_norm"),
    _norm("post_feedforward_layernorm", "feed_forward_output_norm"),
)
_NORMS_AROUND = (
    _norm("input_layernorm", "attention_norm"),
    _norm("pre_feedforward_layernorm", "feed_forward_norm"),
    *_NORMS_AFTER,
)
_QUERY_NORMS = (_norm("self_attn.q_norm", "query_norm"), _norm("self_attn.k_norm", "key_norm"))
_LLAMA = (*_ENDS, *_APART, *_NORMS_BEFORE)

_GPT2 = (
    Tensor("transformer.wte.weight", ("embedding",)),
    Tensor("transformer.wpe.weight", ("position_embedding",)),
    *(
        Tensor(f"transformer.h.{{layer}}.{stored}.{kind}", (f"blocks.{ours}.{part}",))
        for stored, ours in (("ln_1", "attention_norm"), ("ln_2", "feed_forward_norm"))
        for kind, part in (("weight", "scale"), ("bias", "offset"))
    ),
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
    Tensor("transformer.ln_f.weight", ("final_norm.scale",)),
    Tensor("transformer.ln_f.bias", ("final_norm.offset",)),
    Tensor("lm_head.weight", ("unembedding",)),
)


# Families ---------------------------------------------------------------------------------------


class ModelFamily(NamedTuple):
    """A kind of model: its name in `architectures`, its tensors, what its configuration says."""

    name: str
    tensors: tuple[Tensor, ...]
    parts: tuple[Part, ...]
    prefix: str = "model."

    @property
    def scorer(self) -> str | None:
        """The class of transformers that scores texts, if this kind has one."""
        others = {"GraniteForCausalLM": None, "Gemma3ForCausalLM": "Gemma3TextForCausalLM"}
        name = others.get(self.name, self.name)
        if name is None:
            return None
        stem = name.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
        return stem + "ForSequenceClassification"

    def read(self, fields: Fields) -> Architecture:
        """What a configuration describes. Raises `DataError` for what cannot be honoured."""
        config, found = Config(fields), {}
        for part in self.parts:
            found |= part.read(config, found)
        return Architecture(**found)

    def write(self, architecture: Architecture) -> Fields:
        """What a configuration says of it."""
        fields: Fields = {}
        for part in self.parts:
            fields |= part.write(architecture)
        return fields

    def describes(self, architecture: Architecture) -> bool:
        """Whether there are models of this kind with the architecture."""
        # How it is trained is no part of what is stored.
        trained = {"gradient_checkpointing": False, "gradient_accumulation": 1}
        stored = dataclasses.replace(architecture, dtype="float32", **trained)
        try:
            return self.read(self.write(stored)) == stored
        except (DataError, SpecificationError):
            return False


_SIZES = (
    whole("vocab_size", "vocabulary"),
    whole("max_position_embeddings", "context", 2048),
    whole("hidden_size", "width"),
    whole("num_hidden_layers", "layers"),
    whole("num_attention_heads", "heads"),
    whole("num_key_value_heads", "key_value_heads", lambda found: found["heads"]),
    whole("head_dim", "head_width", lambda found: found["width"] // found["heads"]),
    whole("intermediate_size", "hidden"),
    number("rms_norm_eps", "epsilon", 1e-6),
)
_SILU = only("hidden_act", "silu", "swish")
_UNTIED = flag("tie_word_embeddings", "tied")
_TIED = flag("tie_word_embeddings", "tied", default=True)
_ATTENTION_BIAS = flag("attention_bias", "query_bias", "output_bias")
_FEED_FORWARD_BIAS = flag("mlp_bias", "feed_forward_bias")


def _smollm3_rotary() -> Part:
    """Of most layers; the others may keep to a window."""

    def read(config: Config, found: Fields) -> Fields:
        count = found["layers"]
        every = config.positive("no_rope_layer_interval", 4)
        usual = [int((layer + 1) % every != 0) for layer in range(count)]
        turned = [bool(x) for x in config.items("no_rope_layers", count, usual)]
        windows = config.flag("use_sliding_window")
        windows = windows and config.fields.get("sliding_window") is not None
        local = local_layers(config, found, lambda layer: not turned[layer]) if windows else []
        rotary = None if all(turned) else tuple(turned)
        return {"rotary_layers": rotary, **window_of(config, local)}

    def write(a: Architecture) -> Fields:
        turned = [True] * a.layers if a.rotary_layers is None else a.rotary_layers
        return {
            "no_rope_layers": [int(each) for each in turned],
            "use_sliding_window": a.window is not None,
            **layer_types(a),
        }

    return Part(read, write)


def _gpt2_sizes() -> tuple[Part, ...]:
    def whole_heads(config: Config, found: Fields) -> Fields:
        if found["width"] % found["heads"]:
            raise DataError(
                f"field 'n_embd' is {found['width']}, which {found['heads']} heads ('n_head') "
                "cannot share"
            )
        return {}

    return (
        whole("vocab_size", "vocabulary"),
        Part(
            lambda config, found: {
                "context": config.positive("n_positions", config.fields.get("n_ctx") or 1024)
            },
            lambda a: {"n_positions": a.context},
        ),
        whole("n_embd", "width"),
        whole("n_layer", "layers"),
        whole("n_head", "heads"),
        whole("n_inner", "hidden", lambda found: 4 * found["width"]),
        number("layer_norm_epsilon", "epsilon", 1e-5),
        Part(whole_heads, lambda a: {}),
    )


_SCALARS_OF_GEMMA = (
    # What a model is made for is stored, and the root of it divided by.
    Part(
        lambda config, found: {
            "attention_scale": config.number("query_pre_attn_scalar", 256.0) ** -0.5
        },
        lambda a: {"query_pre_attn_scalar": round(a.attention_scale**-2)},
    ),
)
_GEMMA = (
    *_SIZES,
    whole("head_dim", "head_width", 256),
    _TIED,
    _ATTENTION_BIAS,
    only("use_bidirectional_attention", False, None, written=False),
    always(centred_norms=True, feed_forward="geglu"),
    Part(lambda config, found: {"embedding_scale": found["width"] ** 0.5}, lambda a: {}),
)
_OLMO2 = (*_SIZES, number("rms_norm_eps", "epsilon", 1e-5), _SILU, _UNTIED, _ATTENTION_BIAS)
_NORMS_OF_OLMO2 = always(norm_places="after", query_norm="whole")

FAMILIES: dict[str, ModelFamily] = {
    "llama": ModelFamily(
        "LlamaForCausalLM",
        _LLAMA,
        (*_SIZES, _SILU, _UNTIED, _ATTENTION_BIAS, _FEED_FORWARD_BIAS, rotary()),
    ),
    "mistral": ModelFamily(
        "MistralForCausalLM",
        _LLAMA,
        # Where nothing is said, transformers takes 4,096.
        (*_SIZES, _SILU, _UNTIED, rotary(), window_everywhere(4096)),
    ),
    "qwen2": ModelFamily(
        "Qwen2ForCausalLM",
        _LLAMA,
        (*_SIZES, _SILU, _UNTIED, always(query_bias=True), rotary(), switched_windows()),
    ),
    "qwen3": ModelFamily(
        "Qwen3ForCausalLM",
        (*_LLAMA, *_QUERY_NORMS),
        (
            *(*_SIZES, whole("head_dim", "head_width", 128), _SILU, _UNTIED, _ATTENTION_BIAS),
            *(always(query_norm="head"), rotary(), switched_windows()),
        ),
    ),
    "gemma": ModelFamily(
        "GemmaForCausalLM",
        _LLAMA,
        (*_GEMMA, only("hidden_act", "gelu_pytorch_tanh", "gelu"), rotary()),
    ),
    "gemma2": ModelFamily(
        "Gemma2ForCausalLM",
        (*_ENDS, *_APART, *_NORMS_AROUND),
        (
            *(*_GEMMA, *_SCALARS_OF_GEMMA, only("hidden_activation", "gelu_pytorch_tanh")),
            always(norm_places="both"),
            optional("attn_logit_softcapping", "attention_bound", 50.0),
            optional("final_logit_softcapping", "logit_bound", 30.0),
            *(rotary(), windows(lambda layer: layer % 2 == 0)),
        ),
    ),
    "gemma3_text": ModelFamily(
        "Gemma3ForCausalLM",
        (*_ENDS, *_APART, *_NORMS_AROUND, *_QUERY_NORMS),
        (
            *(*_GEMMA, *_SCALARS_OF_GEMMA, only("hidden_activation", "gelu_pytorch_tanh")),
            always(norm_places="both", query_norm="head"),
            only("attn_logit_softcapping", None),
            optional("final_logit_softcapping", "logit_bound"),
            windows_with_rotary(lambda layer: (layer + 1) % 6 != 0, 1_000_000.0, 10_000.0),
        ),
    ),
    "phi3": ModelFamily(
        "Phi3ForCausalLM",
        (*_ENDS, *_JOINED, *_NORMS_BEFORE),
        (
            *(*_SIZES, number("rms_norm_eps", "epsilon", 1e-5), _SILU, _UNTIED),
            *(rotary(partial=True), window_everywhere()),
        ),
    ),
    "olmo": ModelFamily(
        "OlmoForCausalLM",
        (*_ENDS, *_APART),
        (
            *(*_SIZES, _SILU, _UNTIED, _ATTENTION_BIAS, rotary()),
            optional("clip_qkv", "query_bound"),
            always(norm="weightless", epsilon=1e-5),
        ),
    ),
    "olmo2": ModelFamily(
        "Olmo2ForCausalLM",
        (*_ENDS, *_APART, *_NORMS_AFTER, *_QUERY_NORMS),
        (*_OLMO2, _NORMS_OF_OLMO2, rotary()),
    ),
    "olmo3": ModelFamily(
        "Olmo3ForCausalLM",
        (*_ENDS, *_APART, *_NORMS_AFTER, *_QUERY_NORMS),
        (
            *(*_OLMO2, _NORMS_OF_OLMO2),
            windows_with_rotary(lambda layer: (layer + 1) % 4 != 0, 500_000.0, 500_000.0),
        ),
    ),
    "smollm3": ModelFamily(
        "SmolLM3ForCausalLM",
        _LLAMA,
        (
            *(*_SIZES, whole("num_key_value_heads", "key_value_heads", 4), _SILU, _TIED),
            *(_ATTENTION_BIAS, _FEED_FORWARD_BIAS, rotary(2_000_000.0), _smollm3_rotary()),
        ),
    ),
    "granite": ModelFamily(
        "GraniteForCausalLM",
        _LLAMA,
        (
            *(*_SIZES, _SILU, _UNTIED, _ATTENTION_BIAS, _FEED_FORWARD_BIAS, rotary()),
            number("embedding_multiplier", "embedding_scale", 1.0),
            number("residual_multiplier", "residual_scale", 1.0),
            number("attention_multiplier", "attention_scale", 1.0),
            number("logits_scaling", "logit_divisor", 1.0),
        ),
    ),
    "gpt2": ModelFamily(
        "GPT2LMHeadModel",
        _GPT2,
        (
            *(*_gpt2_sizes(), _TIED),
            only("activation_function", "gelu_new", "gelu_pytorch_tanh"),
            only("scale_attn_weights", True, written=False),
            only("scale_attn_by_inverse_layer_idx", False, written=False),
            only("add_cross_attention", False, written=False),
            always(norm="layer", positions="learned", feed_forward="gelu"),
            always(query_bias=True, output_bias=True, feed_forward_bias=True),
        ),
        "transformer.",
    ),
}
"""By `model_type`; the first that describes an architecture is what it is written as."""


def family_of(architecture: Architecture, preferred: str | None = None) -> str:
    """The `model_type` that a decoder is written as: the preferred one if that can be.

    Raises `SpecificationError` if no family has the architecture.
    """
    if architecture.experts:
        raise SpecificationError(
            f"a decoder with {architecture.experts} experts in each layer cannot be written for "
            "transformers yet: write one expert of each (`with_one_expert`)"
        )
    if preferred in FAMILIES and FAMILIES[preferred].describes(architecture):
        return preferred
    for kind, family in FAMILIES.items():
        if family.describes(architecture):
            return kind
    raise SpecificationError(
        f"no family of transformers has this architecture ({architecture}): those that can be "
        f"written are {', '.join(FAMILIES)}"
    )
