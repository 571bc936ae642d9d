"""A token network that rates whole responses."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from headwater.core.records import Completions
from headwater.core.tokens import AbstractHiddenStates, AbstractPacked, AbstractTokenNetwork
from headwater.ops.language.accumulation import in_parts, texts_in_parts
from headwater.ops.language.packing import packed, places


class WithReward(AbstractTokenNetwork):
    """A network with a linear reward, which begins at zero, on its last hidden states."""

    network: AbstractTokenNetwork
    weights: Float[Array, " width"]

    def __init__(self, network: AbstractTokenNetwork):
        assert isinstance(network, AbstractHiddenStates)
        self.network = network
        self.weights = jnp.zeros(network.width)

    @property
    def vocabulary(self) -> int:
        """Of the network."""
        return self.network.vocabulary

    @property
    def context(self) -> int:
        """Of the network."""
        return self.network.context

    @property
    def gradient_accumulation(self) -> int:
        """Of the network."""
        return self.network.gradient_accumulation

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.network.logits(tokens)

    def trainable(self) -> PyTree[bool]:
        everything = jax.tree.map(eqx.is_inexact_array, self)
        return eqx.tree_at(lambda x: x.network, everything, self.network.trainable())

    def rate(self, data: Completions) -> Float[Array, "*batch"]:
        """The reward of each response: read off the state after its last token."""
        assert isinstance(self.network, AbstractHiddenStates)
        reader: AbstractHiddenStates = self.network
        place = jnp.arange(data.tokens.shape[-1])
        last = jnp.max(jnp.where(jnp.asarray(data.response), place, 0), axis=-1)
        parts = self.network.gradient_accumulation

        def rated(hidden: Float[Array, "row position width"]) -> Float[Array, "row position"]:
            return jnp.einsum("...w,w->...", hidden.astype(jnp.float32), self.weights)

        if data.packing is not None and isinstance(reader, AbstractPacked):
            packs: AbstractPacked = reader
            together, text = packed(data, data.packing)
            rows = (together.tokens, text)
            rates = in_parts(lambda rows: rated(packs.packed_hidden(*rows)), rows, parts)
            where = places(data.packing, place.size)
            return rates.reshape(-1)[jnp.take_along_axis(where, last[:, None], axis=-1)[:, 0]]
        rates = texts_in_parts(lambda tokens: rated(reader.hidden(tokens)), data.tokens, parts)
        return jnp.take_along_axis(rates, last[..., None], axis=-1)[..., 0]


def with_reward(network: AbstractTokenNetwork) -> WithReward:
    """The network of a reward model."""
    assert isinstance(network, WithReward)
    return network
