"""A decoder with trained adapters, of which everything else goes on learning."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PyTree

from headwater.core.tokens import AbstractHiddenStates, AbstractTokenNetwork
from headwater.networks.low_rank_adapters import Adapted


class Surrounding(AbstractTokenNetwork, AbstractHiddenStates):
    r"""The decoder around adapters, which learns while they are frozen.

    So what adapters have learned, to debias for example, is put under a task and kept (Agarwal et
    al., 2023, arXiv:2312.00434). Since $x(W + sAB)$ depends on $W$ as it does on the sum, a step
    of any method that treats all numbers alike is the same as with the adapters merged into $W$:
    that is what `--adapters` does without `--rank`. Only weight decay tells them apart.

    **Arguments:** `adapted`: the decoder with its adapters; `adapters_learn`: these learn as well.
    """

    adapted: Adapted
    adapters_learn: bool = eqx.field(static=True)

    def __init__(self, adapted: Adapted, *, adapters_learn: bool = False):
        self.adapted, self.adapters_learn = adapted, adapters_learn

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.adapted.vocabulary

    @property
    def context(self) -> int:
        """Positions at most."""
        return self.adapted.context

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.adapted.width

    @property
    def gradient_accumulation(self) -> int:
        """Of the decoder."""
        return self.adapted.gradient_accumulation

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.adapted.logits(tokens)

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        return self.adapted.hidden(tokens)

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.adapted.unembed(hidden)

    def trainable(self) -> PyTree[bool]:
        everything = jax.tree.map(eqx.is_inexact_array, self)
        if self.adapters_learn:
            return everything
        of_adapters = eqx.tree_at(lambda n: n.adapted, everything, self.adapted.trainable())
        return jax.tree.map(lambda whole, own: whole and not own, everything, of_adapters)
