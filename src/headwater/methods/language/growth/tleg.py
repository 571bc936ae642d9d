"""Layers as a linear function of their depth, learned from a teacher."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.blocks import Blocks, fresh_blocks
from headwater.networks.decoders.changes import with_layers
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.accumulation import texts_in_parts
from headwater.ops.language.tokens import (
    averaged,
    next_log_probabilities,
    of_tokens,
    preceding,
)
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class LinearExpansion(AbstractTokenNetwork):
    r"""Decoders of any depth: of $L$ layers, layer $l$ (from 0) has the numbers $b + (l/L)\,s$.

    **Arguments:** `base`: a decoder of one layer, which has $b$, and what is outside of layers;
    `slope`: $s$; `layers`: of the decoder that `logits` are of.
    """

    base: Decoder
    slope: Blocks
    layers: int = eqx.field(static=True)

    def __init__(self, architecture: Architecture, *, key: PRNGKeyArray):
        decoder_key, base_key, slope_key = jax.random.split(key, 3)
        a = architecture
        one = dataclasses.replace(a, layers=1, local_layers=None, rotary_layers=None)
        self.base = eqx.tree_at(
            lambda d: d.blocks, Decoder(one, key=decoder_key), fresh_blocks(a, 1, key=base_key)
        )
        # Norms and biases begin alike in all layers, so that slopes of them begin at zero.
        self.slope = jax.tree.map(
            lambda drawn, alike: drawn - alike,
            fresh_blocks(a, 1, key=slope_key),
            fresh_blocks(a, 1, key=slope_key, deviation=0.0),
        )
        self.layers = a.layers

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.base.vocabulary

    @property
    def context(self) -> int:
        """Positions at most."""
        return self.base.context

    @property
    def gradient_accumulation(self) -> int:
        """Of the decoder."""
        return self.base.gradient_accumulation

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.decoder(self.layers).logits(tokens)

    def decoder(self, layers: int) -> Decoder:
        """A decoder of so many layers, to begin training with."""
        place = jnp.arange(layers) / layers

        def expanded(base: Array, slope: Array) -> Array:
            along = place.reshape(-1, *(1,) * (base.ndim - 1)).astype(base.dtype)
            return base + along * slope

        blocks = jax.tree.map(expanded, self.base.blocks, self.slope)
        return eqx.tree_at(lambda d: d.blocks, with_layers(self.base, [0] * layers), blocks)


class TLEG(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Learns two numbers for each weight of a layer, from which layers of any depth are made.

    The network that it is given is the teacher, and stays as it is. In an auxiliary decoder of as
    many layers $L$, layer $l$ has the numbers $b + (l/L)\,s$ (`LinearExpansion`). Its loss is
    $\alpha KL(p_{teacher}\|p) - (1-\alpha)\log p(y)$, averaged over tokens of responses. Then
    `state.network.decoder(layers)` is what a decoder of any depth begins with, to be trained by
    another method; `network` is the auxiliary one.

    **Arguments:**

    - `distillation_weight`: α.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Xia, Zhang, Yang, Chen, Chen, Geng (2024), arXiv:2312.05614.

    **Differences from the paper:** a decoder of texts in place of vision transformers; weights
    begin normal, not truncated; those that write into the residual stream begin smaller.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "xia2024transformer",
        summary="layers linear in their depth, from which decoders of any depth begin",
        parents=("SFT",),
    )

    distillation_weight: float = share(1.0)
    learning_rate: float = non_negative(5e-4)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.05)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("cosine")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        teacher = problem.network
        if not isinstance(teacher, Decoder) or teacher.architecture.experts:
            raise SpecificationError(
                "TLEG learns layers of decoders without experts or adapters, which this "
                f"{type(teacher).__name__} is not"
            )
        expansion = LinearExpansion(teacher.architecture, key=key)
        state = begin_tuning(expansion, schedule_of(self), reference=False)
        return TuningState(state.network, teacher, state.optimiser, state.step)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)
        texts = Completions(jnp.asarray(data.tokens), response)
        assert state.frozen is not None
        teacher = state.frozen

        def loss(network: AbstractTokenNetwork):
            assert isinstance(network, LinearExpansion)
            decoder = network.decoder(network.layers)

            def read(texts: Completions):
                logits = decoder.logits(texts.tokens)
                own = next_log_probabilities(logits)
                target = next_log_probabilities(teacher.logits(texts.tokens))
                apart = jnp.sum(jnp.exp(target) * (target - own), axis=-1)
                return of_tokens(logits, texts), preceding(apart)

            own, apart = texts_in_parts(read, texts, network.gradient_accumulation)
            divergence = averaged(apart, response, "token")
            surprise = -averaged(own, response, "token")
            weight = self.distillation_weight
            value = weight * divergence + (1.0 - weight) * surprise
            return value, {"loss": surprise, "teacher_divergence": divergence}

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        assert isinstance(state.network, LinearExpansion)
        return state.network.decoder(state.network.layers)
