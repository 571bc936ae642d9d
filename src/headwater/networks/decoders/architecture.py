"""What shapes a decoder: sizes, norms, positions, windows, experts."""

import dataclasses
from typing import Literal

from headwater.core.errors import SpecificationError
from headwater.core.fields import check_fields
from headwater.networks.experts import ExpertWeights
from headwater.networks.rotary import RotaryScaling

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    r"""What shapes a decoder; the defaults are of the Llama family, `gpt2` gives the other.

    **Arguments:** `vocabulary`: tokens; `context`: positions at most; `width`: of the residual
    stream; `layers`; `heads`: of attention; `hidden`: width inside the feed-forward part (default:
    four times the width); `key_value_heads`: fewer of them than `heads` share keys and values
    (default: as many); `head_width` (default: the width over the heads); `norm`: root mean square,
    layer norm, or layer norm without weights; `norm_places`: of each half of a layer, what it
    reads, what it writes, or both; `centred_norms`: whether the weights of norms are stored less
    one; `query_norm`: whether queries and keys are normalised, each head or all together;
    `positions`; `feed_forward`: gated SiLU, gated GELU, or GELU, in its tanh form; `tied`: whether
    the unembedding is the embedding; `rotary_base`, `rotary_scaling`: of rotary positions;
    `rotary_width`: numbers of each head that they turn (default: all); `rotary_layers`: which
    layers have them (default: all); `window`: so many positions, its own included, are seen from
    each (default: all before it); `local_layers`: which layers keep to the window (default: all);
    `local_rotary_base`: of these, which then are not scaled (default: as the others); `epsilon`: of
    the norms; `query_bias`: whether queries, keys and values have biases; `output_bias`: of
    attention's output; `feed_forward_bias`; `experts`: feed-forward parts in each layer, each
    `hidden` wide, among which a router chooses (default: one part and no router); `active_experts`:
    of them for a token; `expert_weights`: see `ExpertWeights`; `capacity`: share of the tokens read
    together that an expert takes at most while learning (`routed_hidden`), the Switch Transformer's
    capacity factor times `active_experts` over `experts`; 1 leaves none out; `embedding_scale`,
    `residual_scale`: what embeddings, and what layers add, are multiplied by; `attention_scale`:
    what scores are (default: the inverse square root of the head width); `logit_divisor`: what
    logits are divided by; `attention_bound`, `logit_bound`: scores and logits $s$ become $b \tanh(s
    / b)$; `query_bound`: on the absolute values of queries, keys and values;
    `gradient_checkpointing`: whether what a layer computes is computed again for the gradient,
    which takes time and saves memory; `gradient_accumulation`: parts in which a batch is read for
    its gradient, one after the other, which does so too; `dtype`: what is computed in (softmax,
    routers, norms and logits are always in float32).

    Raises `SpecificationError` for sizes that do not fit together.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    hidden: int = 0
    key_value_heads: int = 0
    head_width: int = 0
    norm: Literal["rms", "layer", "weightless"] = "rms"
    norm_places: Literal["before", "after", "both"] = "before"
    centred_norms: bool = False
    query_norm: Literal["none", "head", "whole"] = "none"
    positions: Literal["rotary", "learned"] = "rotary"
    feed_forward: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    tied: bool = False
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    rotary_width: int = 0
    rotary_layers: tuple[bool, ...] | None = None
    window: int | None = None
    local_layers: tuple[bool, ...] | None = None
    local_rotary_base: float | None = None
    epsilon: float = 1e-5
    query_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    experts: int = 0
    active_experts: int = 1
    expert_weights: ExpertWeights = "chosen"
    capacity: float = 1.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float = 0.0
    logit_divisor: float = 1.0
    attention_bound: float | None = None
    logit_bound: float | None = None
    query_bound: float | None = None
    gradient_checkpointing: bool = False
    gradient_accumulation: int = 1
    dtype: Precision = "float32"

    def __post_init__(self):
        check_fields(self)
        # A frozen dataclass fills its defaults in this way alone.
        given = {
            "hidden": self.hidden or 4 * self.width,
            "key_value_heads": self.key_value_heads or self.heads,
            "head_width": self.head_width or self.width // max(self.heads, 1),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if self.head_width:
            scale = self.attention_scale or self.head_width**-0.5
            object.__setattr__(self, "attention_scale", scale)
            object.__setattr__(self, "rotary_width", self.rotary_width or self.head_width)
        counts = ("vocabulary", "context", "width", "layers", "heads", "head_width")
        for name in (*counts, "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise SpecificationError(f"a decoder needs at least one of {name}")
        if self.window is not None and self.window < 1:
            raise SpecificationError(f"a window of {self.window} positions shows nothing: widen it")
        if self.experts and not 1 <= self.active_experts <= self.experts:
            raise SpecificationError(
                f"{self.active_experts} of {self.experts} experts cannot work on a token: take at "
                "least 1 and at most all"
            )
        if not 0.0 < self.capacity <= 1.0:
            raise SpecificationError(
                f"capacity = {self.capacity:g} is a share of the tokens: take more than 0 and at "
                "most 1"
            )
        if self.heads % self.key_value_heads:
            raise SpecificationError(
                f"{self.heads} heads cannot share {self.key_value_heads} heads of keys and values "
                "evenly: take a divisor"
            )
        if self.positions == "rotary" and self.rotary_width % 2:
            raise SpecificationError(
                f"rotary positions turn pairs of numbers, and a head of width {self.rotary_width} "
                "is odd: take an even one"
            )
        if self.local_layers is not None and self.window is None:
            raise SpecificationError("layers that keep to a window need one: say how wide it is")
        for name in ("local_layers", "rotary_layers"):
            which = getattr(self, name)
            if which is not None and len(which) != self.layers:
                raise SpecificationError(
                    f"{name} says something of {len(which)} layers, but there are {self.layers}"
                )


def gpt2(vocabulary: int, context: int, width: int, layers: int, heads: int, **other):
    """The architecture of the GPT-2 family in this size. `other`: further fields."""
    family = {
        "norm": "layer",
        "positions": "learned",
        "feed_forward": "gelu",
        "tied": True,
        "query_bias": True,
        "output_bias": True,
        "feed_forward_bias": True,
    }
    return Architecture(vocabulary, context, width, layers, heads, **{**family, **other})
