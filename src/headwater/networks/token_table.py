"""Tables in the place of a language model: small enough for every expectation to be exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractHiddenStates, AbstractTokenNetwork

_LARGEST = 1_000_000


class PrefixTable(AbstractTokenNetwork, AbstractHiddenStates):
    """A row of logits for every text so far: any policy, with nothing shared between texts.

    **Arguments:** `vocabulary`; `context`: tokens in a text at most. Raises `SpecificationError` if
    there are more texts than fit into memory.
    """

    table: Float[Array, "prefix vocabulary"]
    vocabulary: int = eqx.field(static=True)
    context: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, vocabulary: int, context: int, *, key: PRNGKeyArray | None = None):
        rows = sum(vocabulary**length for length in range(1, context + 1))
        if rows * vocabulary > _LARGEST:
            raise SpecificationError(
                f"a table of every text of {context} tokens out of {vocabulary} has {rows} rows: "
                "take a shorter context or a network"
            )
        shape = (rows, vocabulary)
        self.table = jnp.zeros(shape) if key is None else jax.random.normal(key, shape)
        self.vocabulary, self.context, self.width = vocabulary, context, rows

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.table[self.rows(tokens)]

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        return jax.nn.one_hot(self.rows(tokens), self.width)

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return hidden @ self.table

    def rows(self, tokens: Int[Array, "*batch position"]) -> Int[Array, "*batch position"]:
        """Which row of the table each beginning of the texts has."""
        index = jnp.zeros(tokens.shape[:-1], jnp.int32)
        found = []
        for position in range(tokens.shape[-1]):
            # Texts one token shorter come first; -1 and +1 since there is no empty text.
            index = (
                index * self.vocabulary + tokens[..., position] + (position > 0) * self.vocabulary
            )
            found.append(index)
        return jnp.stack(found, axis=-1)


class PositionTable(AbstractTokenNetwork, AbstractHiddenStates):
    """A row of logits for every position, whatever the text before it: for long responses.

    **Arguments:** `vocabulary`; `context`: tokens in a text at most.
    """

    table: Float[Array, "position vocabulary"]
    vocabulary: int = eqx.field(static=True)
    context: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, vocabulary: int, context: int):
        self.table = jnp.zeros((context, vocabulary))
        self.vocabulary, self.context, self.width = vocabulary, context, context

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        rows = self.table[: tokens.shape[-1]]
        return jnp.broadcast_to(rows, (*tokens.shape, self.vocabulary))

    def hidden(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position width"]:
        return jnp.broadcast_to(
            jnp.eye(self.width)[: tokens.shape[-1]], (*tokens.shape, self.width)
        )

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return hidden @ self.table


class LogLinearResponses(AbstractTokenNetwork):
    """One-token responses whose logits are linear in fixed features: related ones move together.

    **Arguments:** `features`: of each response; `weights`: the logits are `features @ weights`,
    whatever the prompt; `offset`: added to the logits, and not trained.
    """

    features: Float[Array, "vocabulary feature"]
    weights: Float[Array, " feature"]
    offset: Float[Array, " vocabulary"]
    vocabulary: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self,
        features: Float[Array, "vocabulary feature"],
        weights: Float[Array, " feature"],
        offset: Float[Array, " vocabulary"] | None = None,
    ):
        self.features, self.weights = features, weights
        self.offset = jnp.zeros(features.shape[0]) if offset is None else offset
        self.vocabulary, self.context = features.shape[0], 2

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        logits = self.features @ self.weights + self.offset
        return jnp.broadcast_to(logits, (*tokens.shape, self.vocabulary))

    def trainable(self):
        everything = jax.tree.map(eqx.is_inexact_array, self)
        return eqx.tree_at(lambda x: (x.features, x.offset), everything, (False, False))
