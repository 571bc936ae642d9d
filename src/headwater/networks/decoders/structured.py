"""Decoders that read the demonstrations of a prompt apart from each other."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractHiddenStates, AbstractTokenNetwork
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.layer import (
    NEVER,
    added,
    attending,
    fed_forward,
    first_place,
    normalised,
    scores_of,
    turn_of_layer,
    turns_of,
)


class Structure(NamedTuple):
    """How a decoder reads demonstrations. **Arguments:** as of `StructuredDecoder`."""

    separator: int
    answer: int
    query_is_global: bool = True
    demonstration_tokens: int | None = None
    query_tokens: int | None = None


class Parts(NamedTuple):
    """What each token of a text belongs to.

    **Arguments:** `demonstration`: its number, counted from 0, which for the query and the response
    is the number of demonstrations; `in_prompt`: whether it stands before the response; `place`:
    its position, which does not depend on the order of the demonstrations.
    """

    demonstration: Int[Array, "row position"]
    in_prompt: Bool[Array, "row position"]
    place: Int[Array, "row position"]

    @property
    def demonstrations(self) -> Int[Array, "row one"]:
        """How many there are in each text."""
        return self.demonstration[:, -1:]

    @property
    def in_demonstration(self) -> Bool[Array, "row position"]:
        """Whether each token belongs to a demonstration."""
        return self.demonstration < self.demonstrations


class StructuredDecoder(AbstractTokenNetwork, AbstractHiddenStates):
    """A decoder in which the demonstrations of a prompt do not see each other.

    A prompt is demonstrations, each with a separator at its end, and a query whose end is the first
    `answer` of the text: `xy;xy;xy;x>y` with the separator `;` and the answer `>`. A token of a
    demonstration sees that demonstration, its later tokens too, and the query; the query sees the
    whole prompt; the response sees the prompt and, as always, what of itself comes before.
    Positions begin anew in each demonstration, and the query follows the longest one, so that the
    order of the demonstrations does not matter. A text without `answer` is read as the decoder
    reads it.

    **Arguments:** `decoder`; `separator`, `answer`: tokens (a separator of -1: there is none, so
    that the query is the whole prompt and all of it sees all of it); `query_is_global`: if false,
    demonstrations do not see the query, as in Fusion-in-Decoder, where each has to hold a copy of
    it; `demonstration_tokens`, `query_tokens`: in a demonstration, its separator included, and in
    query and response together, at most. With both, texts that keep to them are read in a time that
    grows with the number of demonstrations and not with its square; what comes out is the same.
    Raises `SpecificationError` for a decoder with a window, and for tokens that it does not have.
    """

    decoder: Decoder
    separator: int = eqx.field(static=True)
    answer: int = eqx.field(static=True)
    query_is_global: bool = eqx.field(static=True, default=True)
    demonstration_tokens: int | None = eqx.field(static=True, default=None)
    query_tokens: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        a = self.decoder.architecture
        if a.window is not None:
            raise SpecificationError(
                f"demonstrations are seen from wherever they are, and this decoder sees {a.window} "
                "positions from each: take one without a window"
            )
        for name, token in (("separator", self.separator), ("answer", self.answer)):
            if token >= a.vocabulary:
                raise SpecificationError(
                    f"{name} = {token} is no token of this decoder, which has 0 to "
                    f"{a.vocabulary - 1}: look it up with its tokenizer"
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

    @property
    def structure(self) -> Structure:
        """All but the decoder."""
        return Structure(*(getattr(self, name) for name in Structure._fields))

    def trainable(self) -> PyTree[bool]:
        nothing = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda n: n.decoder, nothing, self.decoder.trainable())

    def logits(
        self, tokens: Int[Array, "*batch position"], length: Int[Array, "*batch"] | None = None
    ) -> Float[Array, "*batch position vocabulary"]:
        """**Arguments:** `length`: of each text, behind which is padding (default: all of it)."""
        return self.unembed(self.hidden(tokens, length))

    def unembed(
        self, hidden: Float[Array, "*batch position width"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self.decoder.unembed(hidden)

    def hidden(
        self, tokens: Int[Array, "*batch position"], length: Int[Array, "*batch"] | None = None
    ) -> Float[Array, "*batch position width"]:
        """**Arguments:** `length`: of each text, behind which is padding (default: all of it)."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        if self.demonstration_tokens is None or self.query_tokens is None:
            hidden = self._run(flat, in_blocks=False)
        else:
            given = jnp.full(flat.shape[:1], flat.shape[1]) if length is None else length
            hidden = jax.lax.cond(
                self._fits(flat, given.reshape(-1)),
                lambda tokens: self._run(tokens, in_blocks=True),
                lambda tokens: self._run(tokens, in_blocks=False),
                flat,
            )
        return hidden.reshape(*tokens.shape, -1)

    def hidden_in_blocks(
        self, tokens: Int[Array, "row position"]
    ) -> Float[Array, "row position width"]:
        """`hidden` of texts that keep to `demonstration_tokens` and `query_tokens`.

        Where one does not, what is beyond them is wrong.
        """
        return self._run(tokens, in_blocks=True)

    def parts(self, tokens: Int[Array, "row position"]) -> Parts:
        """What each token belongs to."""
        ends = jnp.cumsum(tokens == self.answer, axis=1)
        # The answer token itself still belongs to the prompt.
        before = jnp.concatenate([jnp.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1) == 0
        in_prompt = before & (ends[:, -1:] > 0)
        separates = (tokens == self.separator) & in_prompt
        number = jnp.cumsum(separates, axis=1) - separates
        place = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape) - first_place(number)
        parts = Parts(number, in_prompt, place)
        own = parts.in_demonstration
        longest = jnp.max(jnp.where(own, place + 1, 0), axis=1, keepdims=True)
        return parts._replace(place=place + jnp.where(own, 0, longest))

    def _fits(self, tokens, length) -> Bool[Array, ""]:
        """Whether all texts keep to the tokens that a demonstration, and a query, have at most."""
        assert self.demonstration_tokens is not None and self.query_tokens is not None
        parts = self.parts(tokens)
        own = parts.in_demonstration
        longest = jnp.max(jnp.where(own, parts.place + 1, 0))
        others = length - jnp.sum(own, axis=1)
        return (longest <= self.demonstration_tokens) & (jnp.max(others) <= self.query_tokens)

    def _run(self, tokens: Int[Array, "row position"], *, in_blocks: bool) -> Array:
        decoder, a, (rows, positions) = self.decoder, self.decoder.architecture, tokens.shape
        if positions > a.context:
            raise SpecificationError(
                f"texts of {positions} tokens do not fit into a context of {a.context}: "
                "shorten them"
            )
        parts = self.parts(tokens)
        x = decoder._embedded(tokens, parts.place).reshape(-1, a.width)
        # The positions that are in use, which stretched ones depend on.
        longest = jnp.repeat(jnp.max(parts.place, axis=1) + 1, positions)
        turns = turns_of(a, parts.place.reshape(-1), longest)
        if in_blocks:
            assert self.demonstration_tokens is not None and self.query_tokens is not None
            sizes = self.demonstration_tokens, self.query_tokens
            attend = _in_blocks(parts, self.query_is_global, *sizes, a)
        else:
            attend = _whole(parts, self.query_is_global, a)

        def layer(x, inputs):
            block, kind = inputs
            y = normalised(block.attention_norm, x)
            query, key, value = (
                y.reshape(rows, positions, a.key_value_heads, -1, a.head_width)
                for y in attending(block, y, a, turn_of_layer(turns, kind))
            )
            seen = attend(query, key[:, :, :, 0], value[:, :, :, 0])
            attended = block.output(seen.reshape(rows * positions, -1))
            x = added(x, attended, block.attention_output_norm, a)
            fed, _ = fed_forward(block, x, a)
            return added(x, fed, block.feed_forward_output_norm, a), None

        if a.gradient_checkpointing:
            layer = jax.checkpoint(layer)
        x, _ = jax.lax.scan(layer, x, decoder._layers())
        return decoder.final_norm(x).reshape(rows, positions, a.width)


def visible(parts: Parts, query_is_global: bool) -> Bool[Array, "row position position"]:
    """Which tokens (last axis) each token sees."""
    own = parts.in_demonstration
    same = parts.demonstration[:, :, None] == parts.demonstration[:, None, :]
    prompt = jnp.broadcast_to(parts.in_prompt[:, None, :], same.shape)
    query = prompt & ~own[:, None, :]
    earlier = jnp.tril(jnp.ones_like(same))
    from_demonstration = prompt & same
    if query_is_global:
        from_demonstration = from_demonstration | query
    from_others = prompt | (earlier & ~parts.in_prompt[:, :, None])
    return jnp.where(own[:, :, None], from_demonstration, from_others)


def _whole(parts: Parts, query_is_global: bool, a: Architecture):
    """Attention by scores of all pairs of tokens."""
    seen = visible(parts, query_is_global)[:, None, None]

    def attend(query, key, value):
        scores = scores_of("rqkgh,rpkh->rkgqp", query, key, a)
        probabilities = jax.nn.softmax(jnp.where(seen, scores, NEVER)).astype(value.dtype)
        return jnp.einsum("rkgqp,rpkh->rqkgh", probabilities, value)

    return attend


def _in_blocks(parts: Parts, query_is_global: bool, block: int, tail: int, a: Architecture):
    """The same, of demonstrations of at most `block` tokens, and `tail` in all others together.

    A demonstration lies in one block of so many positions, or in two that are neighbours.
    """
    rows, positions = parts.place.shape
    blocks = -(-positions // block)
    own = parts.in_demonstration
    # Query and response stand behind all demonstrations.
    index = jnp.sum(own, axis=1, keepdims=True) + jnp.arange(tail)[None]
    there, index = index < positions, jnp.minimum(index, positions - 1)
    row = jnp.arange(rows)[:, None]

    def chunks(x):
        padding = [(0, 0), (0, blocks * block - positions)] + [(0, 0)] * (x.ndim - 2)
        return jnp.pad(x, padding).reshape(rows, blocks, block, *x.shape[2:])

    def neighbours(x):
        padded = jnp.pad(chunks(x), [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 1))
        return jnp.concatenate([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], axis=2)

    # Numbers of demonstrations from 1, so that what is padded with 0 is in none.
    number = jnp.where(own, parts.demonstration + 1, 0)
    mine, theirs = chunks(number)[:, :, :, None], neighbours(number)[:, :, None, :]
    near = (mine == theirs) & (mine > 0)
    in_query = there & parts.in_prompt[row, index] & query_is_global
    far = jnp.broadcast_to(in_query[:, None, None, :], (rows, blocks, block, tail))
    seen = jnp.concatenate([near, far], axis=-1)[:, :, None, None]
    # Of query and response, which see more.
    place = jnp.arange(positions)[None, None]
    earlier = (index[:, :, None] >= place) & ~parts.in_prompt[row, index][:, :, None]
    seen_from_tail = (parts.in_prompt[:, None, :] | earlier)[:, None, None]

    def attend(query, key, value):
        tail_key, tail_value = key[row, index], value[row, index]
        near = scores_of("rcqkgh,rcpkh->rckgqp", chunks(query), neighbours(key), a)
        far = scores_of("rcqkgh,rpkh->rckgqp", chunks(query), tail_key, a)
        scores = jnp.where(seen, jnp.concatenate([near, far], axis=-1), NEVER)
        near, far = jnp.split(jax.nn.softmax(scores).astype(value.dtype), [3 * block], axis=-1)
        found = jnp.einsum("rckgqp,rcpkh->rcqkgh", near, neighbours(value))
        found = found + jnp.einsum("rckgqp,rpkh->rcqkgh", far, tail_value)
        found = found.reshape(rows, blocks * block, *found.shape[3:])[:, :positions]
        scores = scores_of("rqkgh,rpkh->rkgqp", query[row, index], key, a)
        scores = jnp.where(seen_from_tail, scores, NEVER)
        probabilities = jax.nn.softmax(scores).astype(value.dtype)
        of_tail = jnp.einsum("rkgqp,rpkh->rqkgh", probabilities, value)
        return found.at[row, jnp.where(there, index, positions)].set(of_tail, mode="drop")

    return attend
