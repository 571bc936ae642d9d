"""A token network that also predicts what reward is to come."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from headwater.core.records import Completions
from headwater.core.tokens import AbstractHiddenStates, AbstractTokenNetwork
from headwater.ops.language.accumulation import texts_in_parts
from headwater.ops.language.tokens import of_tokens, preceding


class Judged(NamedTuple):
    """Of each token: its log-probability, zero outside responses, and the value before it."""

    log_probability: Float[Array, "*batch position"]
    value: Float[Array, "*batch position"]


class WithValue(AbstractTokenNetwork):
    """A network with a linear prediction of the reward to come on its last hidden states.

    The prediction begins at zero and shares the network's weights.
    """

    network: AbstractTokenNetwork
    weights: Float[Array, " width"]
    bias: Float[Array, ""]

    def __init__(self, network: AbstractTokenNetwork):
        assert isinstance(network, AbstractHiddenStates)
        self.network = network
        self.weights, self.bias = jnp.zeros(network.width), jnp.zeros(())

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

    def judge(self, data: Completions, temperature: float | Float[Array, ""]) -> Judged:
        """Log-probabilities and values in one pass; the first token has value zero."""
        assert isinstance(self.network, AbstractHiddenStates)
        network: AbstractHiddenStates = self.network

        def judged(texts: Completions) -> Judged:
            hidden = network.hidden(texts.tokens)
            value = jnp.einsum("...w,w->...", hidden.astype(jnp.float32), self.weights) + self.bias
            own = of_tokens(network.unembed(hidden), texts, temperature)
            return Judged(own, preceding(value))

        texts = Completions(jnp.asarray(data.tokens), jnp.asarray(data.response))
        return texts_in_parts(judged, texts, self.network.gradient_accumulation)


def with_value(network: AbstractTokenNetwork) -> WithValue:
    """The network of a state that `begin_with_value` began."""
    assert isinstance(network, WithValue)
    return network
