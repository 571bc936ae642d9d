"""Token decision processes: the state is a text so far, an action the next token."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions

Cache = PyTree[Shaped[Array, "..."]]
"""What a network remembers of the tokens that it has read."""


class AbstractTokenNetwork(eqx.Module):
    """Says how probable every next token is: a decoder, a table, a combination of several.

    Rows of tokens begin at position 0 and are padded at the end, so that padding, which comes after
    all that matters, never changes anything.
    """

    vocabulary: eqx.AbstractVar[int]
    """Number of tokens; they are counted from zero."""
    context: eqx.AbstractVar[int]
    """Positions that the network can read at most."""

    @abc.abstractmethod
    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        """Unnormalised log-probabilities of the token after each position."""

    @property
    def gradient_accumulation(self) -> int:
        """Parts in which a batch is read for its gradient, one after the other."""
        return 1

    def trainable(self) -> PyTree[bool]:
        """Which leaves learning may change: a tree like the network, of booleans."""
        return jax.tree.map(eqx.is_inexact_array, self)


class AbstractHiddenStates(eqx.Module):
    """Capability of a network: shows the last hidden states, which the logits are linear in."""

    width: eqx.AbstractVar[int]

    @abc.abstractmethod
    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        """What the unembedding reads at each position."""

    @abc.abstractmethod
    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        """The logits of hidden states."""


class AbstractPacked(AbstractHiddenStates):
    """Capability of a network: reads several texts in one row, each as if it stood alone."""

    @abc.abstractmethod
    def packed_hidden(
        self, tokens: Int[Array, "row position"], text: Int[Array, "row position"]
    ) -> Float[Array, "row position width"]:
        """The last hidden states, where no text sees another.

        **Arguments:** `text`: the number of the text that each token belongs to; those of one text
        stand side by side, and positions are counted from its first token.
        """


class AbstractIncremental(eqx.Module):
    """Capability of a network: reads one more token without reading the earlier ones again."""

    @abc.abstractmethod
    def read(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"], capacity: int
    ) -> tuple[Cache, Float[Array, "row vocabulary"]]:
        """Reads prompts and makes room for `capacity` positions in all.

        What is remembered of padding is overwritten by the tokens that come in its place.

        **Returns:** what is remembered, and the logits of the token after each prompt.
        """

    @abc.abstractmethod
    def read_one(
        self, cache: Cache, token: Int[Array, " row"], position: Int[Array, " row"]
    ) -> tuple[Cache, Float[Array, "row vocabulary"]]:
        """Reads one token of each row, at the row's own `position`."""


class AbstractLayered(eqx.Module):
    """Capability of a network: works with some of its layers alone."""

    @property
    @abc.abstractmethod
    def layer_count(self) -> int:
        """How many layers there are."""

    @abc.abstractmethod
    def logits_along(
        self,
        tokens: Int[Array, "*batch position"],
        layers: Int[Array, " depth"],
        residual_scale: float | Float[Array, ""] = 1.0,
    ) -> Float[Array, "*batch position vocabulary"]:
        """The logits of the network that has these layers only, in this order.

        **Arguments:** `layers`: their numbers, which may be known only when it runs;
        `residual_scale`: what every layer adds is multiplied by it.
        """


class AbstractAdapted(eqx.Module):
    """Capability of a network: small trained additions to frozen weights, which can be left out."""

    @abc.abstractmethod
    def without_adapters(self) -> AbstractTokenNetwork:
        """The network as it was before training."""


class TokenProblem(eqx.Module):
    """What a method for language models is told before it learns.

    **Arguments:** `network`: with the weights to start from, which are also the reference policy of
    methods that have one; `end`: the token that ends a response, or all that do (-1 or `()`: none
    does, responses have a fixed length).
    """

    network: AbstractTokenNetwork
    end: int | tuple[int, ...] = eqx.field(static=True, default=-1)

    def require_hidden(self, method: str) -> AbstractHiddenStates:
        """The network. Raises `SpecificationError` if `method` needs hidden states: none shown."""
        if not isinstance(self.network, AbstractHiddenStates):
            raise SpecificationError(
                f"{method} reads hidden states, which {type(self.network).__name__} does not show"
            )
        return self.network


class Prompts(eqx.Module):
    """Beginnings of texts.

    **Arguments:** `tokens`: padded at the end with anything; `length`: of each prompt, in tokens.
    """

    tokens: Int[Array, "*batch position"]
    length: Int[Array, "*batch"]


class AbstractCompletionReward(eqx.Module):
    """Judges whole responses: a rule, a learned model, a length."""

    @abc.abstractmethod
    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        """The reward of each response."""


class AbstractTokenReward(eqx.Module):
    """Judges parts of responses: sentences, steps, or whatever ends somewhere."""

    @abc.abstractmethod
    def __call__(self, data: Completions) -> Float[Array, "*batch position"]:
        """The reward of each part at its last token, and zero elsewhere."""


class AbstractPreference(eqx.Module):
    """Compares two responses to the same prompt; what it prefers may go round in circles."""

    @abc.abstractmethod
    def __call__(self, first: Completions, second: Completions) -> Float[Array, "*batch"]:
        """The probability that `first` is preferred."""


def position_mask(
    start: Int[Array, "*batch"], stop: Int[Array, "*batch"], positions: int
) -> Bool[Array, "*batch position"]:
    """True from `start` up to, and not at, `stop`."""
    place = jnp.arange(positions).reshape(*(1,) * start.ndim, positions)
    return (place >= start[..., None]) & (place < stop[..., None])
