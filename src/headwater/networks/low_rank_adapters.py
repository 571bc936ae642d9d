"""Low-rank adapters: small trained matrices beside the frozen ones of a decoder."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError, nearest
from headwater.core.tokens import (
    AbstractAdapted,
    AbstractIncremental,
    AbstractPacked,
    AbstractTokenNetwork,
)
from headwater.networks.decoders.blocks import AbstractLinear, Linear, product
from headwater.networks.decoders.decoder import Decoder, KeyValues

Matrix = Literal["query", "key", "value", "output", "gate", "up", "down"]
MATRICES: tuple[Matrix, ...] = ("query", "key", "value", "output", "gate", "up", "down")
"""Every matrix of a layer that can have an adapter."""


class AdaptedLinear(AbstractLinear):
    """A linear map `W` with an adapter: `x W + scale · (x A) B`.

    **Arguments:** `inner`: the frozen map; `into`: A; `out_of`: B; `scale`.
    """

    inner: Linear
    into: Float[Array, "*layer fan_in rank"]
    out_of: Float[Array, "*layer rank fan_out"]
    scale: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        added = product(product(x, self.into), self.out_of)
        return self.inner(x) + jnp.asarray(self.scale, x.dtype) * added

    def merged(self) -> Linear:
        """One matrix that does the same."""
        weight = self.inner.weight
        added = self.into.astype(jnp.float32) @ self.out_of.astype(jnp.float32)
        total = weight.astype(jnp.float32) + self.scale * added
        return Linear(total.astype(weight.dtype), self.inner.bias)


class Adapted(AbstractTokenNetwork, AbstractPacked, AbstractIncremental, AbstractAdapted):
    """A decoder of which only low-rank adapters learn (Hu et al., 2021, arXiv:2106.09685).

    It begins as the decoder that it is made of, since each B begins at zero.

    **Arguments:** `decoder`; `key`: the adapters' first halves are drawn with it; `rank`: of each
    adapter (r; `r` in PEFT); `alpha`: an adapter counts alpha / rank times (`lora_alpha`);
    `matrices`: of each layer that get one (`target_modules`), or `None`: all that there are. The
    adapters are in float32 whatever the type of the frozen arrays. Raises `SpecificationError` for
    a matrix that the decoder does not have.
    """

    decoder: Decoder

    def __init__(
        self,
        decoder: Decoder,
        *,
        key: PRNGKeyArray,
        rank: int = 8,
        alpha: float = 16.0,
        matrices: tuple[Matrix, ...] | None = ("query", "value"),
    ):
        if rank < 1:
            raise SpecificationError(f"an adapter of rank {rank} cannot learn: take at least 1")
        present = [name for name in MATRICES if getattr(decoder.blocks, name) is not None]
        if decoder.blocks.router is not None:
            present = [name for name in present if name not in ("gate", "up", "down")]
        for name in matrices or ():
            if name not in present:
                raise SpecificationError(nearest(name, present, "matrix"))
        chosen = tuple(name for name in present if matrices is None or name in matrices)
        if not chosen:
            raise SpecificationError(f"name the matrices to adapt: {', '.join(present)}")
        keys = jax.random.split(key, len(chosen))
        linears = []
        for name, key in zip(chosen, keys):
            inner = getattr(decoder.blocks, name)
            layers, fan_in, fan_out = inner.weight.shape
            # Uniform as in PyTorch's linear layers, where adapters were first made.
            bound = fan_in**-0.5
            into = jax.random.uniform(key, (layers, fan_in, rank), minval=-bound, maxval=bound)
            out_of = jnp.zeros((layers, rank, fan_out))
            linears.append(AdaptedLinear(inner, into, out_of, alpha / rank))
        self.decoder = eqx.tree_at(
            lambda d: [getattr(d.blocks, name) for name in chosen], decoder, linears
        )

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.decoder.vocabulary

    @property
    def context(self) -> int:
        """Positions at most."""
        return self.decoder.context

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.decoder.width

    @property
    def gradient_accumulation(self) -> int:
        """Of the decoder."""
        return self.decoder.gradient_accumulation

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.decoder.logits(tokens)

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        return self.decoder.hidden(tokens)

    def packed_hidden(
        self, tokens: Int[Array, "row position"], text: Int[Array, "row position"]
    ) -> Float[Array, "row position width"]:
        return self.decoder.packed_hidden(tokens, text)

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.decoder.unembed(hidden)

    def read(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"], capacity: int
    ) -> tuple[KeyValues, Float[Array, "row vocabulary"]]:
        return self.decoder.read(tokens, length, capacity)

    def read_one(
        self, cache: KeyValues, token: Int[Array, " row"], position: Int[Array, " row"]
    ) -> tuple[KeyValues, Float[Array, "row vocabulary"]]:
        return self.decoder.read_one(cache, token, position)

    def trainable(self) -> PyTree[bool]:
        def of(part):
            nothing = jax.tree.map(lambda _: False, part)
            if not isinstance(part, AdaptedLinear):
                return nothing
            return eqx.tree_at(lambda p: (p.into, p.out_of), nothing, (True, True))

        return jax.tree.map(of, self, is_leaf=_is_adapted)

    def without_adapters(self) -> Decoder:
        return jax.tree.map(
            lambda part: part.inner if isinstance(part, AdaptedLinear) else part,
            self.decoder,
            is_leaf=_is_adapted,
        )

    def merged(self) -> Decoder:
        """A decoder without adapters that says the same, up to rounding."""
        return jax.tree.map(
            lambda part: part.merged() if isinstance(part, AdaptedLinear) else part,
            self.decoder,
            is_leaf=_is_adapted,
        )


def _is_adapted(part: object) -> bool:
    return isinstance(part, AdaptedLinear)
