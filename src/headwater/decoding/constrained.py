"""Writing texts in which given words must come, may come so often, or must not come."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractIncremental, AbstractTokenNetwork
from headwater.ops.language.generation import reader_of
from headwater.ops.language.tokens import next_log_probabilities

_NONE = -1
_MANY = 2**30


class Constraint(NamedTuple):
    """How often any of some phrases comes in a text, its prompt included.

    **Arguments:** `phrases`: each the numbers of its tokens; `least`, `most`: times that they come,
    all together; `None` for `most`: as often as one likes. A clause of a constraint in conjunctive
    normal form, "one of these", has `least` 1; a word that must not come `most` 0.
    """

    phrases: Sequence[Sequence[int]]
    least: int = 0
    most: int | None = None


class Constrained(AbstractTokenNetwork, AbstractIncremental):
    r"""A network that writes nothing that breaks a constraint.

    Tokens that would end a phrase too often have no probability, and neither has the end while a
    phrase is missing. Where there is just room for what is missing, only that can come. So every
    text of `generate` keeps all constraints, as far as they do not contradict each other; where no
    token is left, the network is as it would be without them.

    The logical constraints are those of NeuroLogic decoding (Lu et al., 2021, arXiv:2010.12884),
    which I2D2 writes with. They are kept by every text that is drawn, here, where there they are
    scores in a search by beams; so texts can be as diverse as the network's own.

    **Arguments:** `network`; `constraints`; `end`: the token that ends a text, or all that do. A
    text that is told to stop before the width of `generate` may miss a phrase. Raises
    `SpecificationError` for constraints that cannot be kept.
    """

    network: AbstractTokenNetwork
    phrases: Int[Array, "phrase token"]
    """Aligned at their ends, with -1 before."""
    owner: Int[Array, " phrase"]
    least: Int[Array, " constraint"]
    most: Int[Array, " constraint"]
    end: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        network: AbstractTokenNetwork,
        constraints: Sequence[Constraint],
        *,
        end: int | tuple[int, ...] = (),
    ):
        phrases = [(i, tuple(p)) for i, each in enumerate(constraints) for p in each.phrases]
        for each in constraints:
            _check(each, network.vocabulary)
        if not phrases:
            raise SpecificationError("there is no constraint: write with the network itself")
        longest = max(len(phrase) for _, phrase in phrases)
        rows = np.full((len(phrases), longest), _NONE, np.int32)
        for row, (_, phrase) in zip(rows, phrases):
            row[longest - len(phrase) :] = phrase
        self.network = network
        self.phrases = jnp.asarray(rows)
        self.owner = jnp.asarray([i for i, _ in phrases], jnp.int32)
        self.least = jnp.asarray([each.least for each in constraints], jnp.int32)
        most = [_MANY if each.most is None else each.most for each in constraints]
        self.most = jnp.asarray(most, jnp.int32)
        ends = (end,) if isinstance(end, int) else tuple(end)
        self.end = tuple(token for token in ends if token >= 0)

    @property
    def vocabulary(self) -> int:
        """Of the network."""
        return self.network.vocabulary

    @property
    def context(self) -> int:
        """Of the network."""
        return self.network.context

    def trainable(self) -> PyTree[bool]:
        # What learns is the network without its constraints.
        return jax.tree.map(lambda _: False, self)

    def counts(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"]
    ) -> Int[Array, "row constraint"]:
        """How often the phrases of each constraint come in the first tokens of each text."""
        width = self.phrases.shape[-1]
        padded = jnp.pad(tokens, ((0, 0), (width - 1, 0)), constant_values=_NONE)
        windows = jnp.stack(
            [padded[:, i : i + tokens.shape[-1]] for i in range(width)], axis=-1
        )  # [row, position, token]
        given = self.phrases[None, None]
        same = (windows[:, :, None] == given) | (given < 0)
        inside = jnp.arange(tokens.shape[-1])[None] < length[:, None]
        found = jnp.sum(jnp.all(same, axis=-1) & inside[..., None], axis=1)
        return self._by_constraint(found)

    def kept(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"]
    ) -> Bool[Array, " row"]:
        """Whether the first tokens of each text keep every constraint."""
        counts = self.counts(tokens, length)
        return jnp.all((counts >= self.least[None]) & (counts <= self.most[None]), axis=-1)

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        flat = tokens.reshape(-1, tokens.shape[-1])
        logits = self.network.logits(flat)
        rows, positions = flat.shape

        def at(position: Array, logits: Array) -> Array:
            length = jnp.full(rows, position + 1)
            return self._constrained(logits, flat, length, jnp.full(rows, positions))

        found = jax.vmap(at, (0, 1), 1)(jnp.arange(positions), logits)
        return found.reshape(*tokens.shape, -1)

    def read(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"], capacity: int
    ) -> tuple[Any, Float[Array, "row vocabulary"]]:
        cache, logits = reader_of(self.network).read(tokens, length, capacity)
        room = capacity - tokens.shape[-1]
        texts = jnp.pad(tokens, ((0, 0), (0, room)), constant_values=_NONE)
        # Each text has as much room after its prompt, wherever that ends.
        longest = jnp.asarray(length) + room
        return (cache, texts, longest), self._constrained(logits, texts, length, longest)

    def read_one(
        self, cache: Any, token: Int[Array, " row"], position: Int[Array, " row"]
    ) -> tuple[Any, Float[Array, "row vocabulary"]]:
        inner, texts, longest = cache
        inner, logits = reader_of(self.network).read_one(inner, token, position)
        texts = texts.at[jnp.arange(texts.shape[0]), position].set(token.astype(texts.dtype))
        return (inner, texts, longest), self._constrained(logits, texts, position + 1, longest)

    def _by_constraint(self, of_phrase: Int[Array, "row phrase"]) -> Int[Array, "row constraint"]:
        return of_phrase.astype(jnp.int32) @ self._member.astype(jnp.int32)

    @property
    def _member(self) -> Bool[Array, "phrase constraint"]:
        return self.owner[:, None] == jnp.arange(self.least.shape[0])[None]

    def _constrained(
        self,
        logits: Float[Array, "row vocabulary"],
        tokens: Int[Array, "row position"],
        length: Int[Array, " row"],
        longest: Int[Array, " row"],
    ) -> Float[Array, "row vocabulary"]:
        """Log-probabilities of the network, minus infinity where a constraint forbids the token."""
        logs = next_log_probabilities(logits)
        counts = self.counts(tokens, length)
        progress = self._progress(tokens, length)
        sizes = jnp.sum(self.phrases >= 0, axis=-1)
        row = jnp.arange(tokens.shape[0])[:, None]
        # A phrase of which all but the last token stands there would come once more.
        full = (counts >= self.most[None])[:, self.owner]
        ends = self._ends_next(tokens, length) & full
        last = jnp.broadcast_to(self.phrases[None, :, -1], ends.shape)
        forbidden = jnp.zeros(logs.shape, jnp.int32).at[row, last].max(ends.astype(jnp.int32)) > 0
        missing = jnp.maximum(self.least[None] - counts, 0)
        is_end = jnp.isin(jnp.arange(self.vocabulary), jnp.asarray(self.end, jnp.int32))[None]
        forbidden = forbidden | (is_end & jnp.any(missing > 0, axis=-1, keepdims=True))
        # The shortest phrases of what is missing, and the one that has come furthest.
        shortest = jnp.min(jnp.where(self._member, sizes[:, None], _MANY), axis=0)
        wanted = (missing > 0)[:, self.owner] & (sizes == shortest[self.owner])[None]
        begun = jnp.where(wanted, progress, _NONE)
        furthest = jnp.max(begun, axis=-1, keepdims=True)
        needed = jnp.sum(missing * shortest[None], axis=-1, keepdims=True) - jnp.maximum(
            furthest, 0
        )
        room = (longest - length)[:, None] - (1 if self.end else 0)
        next_place = (self.phrases.shape[-1] - sizes)[None] + progress
        following = jnp.take_along_axis(
            jnp.broadcast_to(self.phrases[None], (*progress.shape, self.phrases.shape[-1])),
            next_place[..., None],
            axis=-1,
        )[..., 0]
        comes_next = (begun == furthest) & wanted
        due = jnp.zeros(logs.shape, jnp.int32).at[row, following].max(comes_next.astype(jnp.int32))
        forced = (needed > 0) & (room <= needed)
        allowed = ~forbidden & (~forced | (due > 0))
        none_left = ~jnp.any(allowed, axis=-1, keepdims=True)
        return jnp.where(allowed | none_left, logs, -jnp.inf)

    def _suffix(self, tokens: Array, length: Array, count: int) -> Array:
        """The last `count` tokens of each text, with -1 before its first."""
        place = length[:, None] + jnp.arange(-count, 0)[None]
        found = jnp.take_along_axis(tokens, jnp.maximum(place, 0), axis=-1)
        return jnp.where(place >= 0, found, _NONE)

    def _ends_next(self, tokens: Array, length: Array) -> Bool[Array, "row phrase"]:
        before = self.phrases[:, :-1]
        suffix = self._suffix(tokens, length, before.shape[-1])
        return jnp.all((suffix[:, None] == before[None]) | (before < 0)[None], axis=-1)

    def _progress(self, tokens: Array, length: Array) -> Int[Array, "row phrase"]:
        """How many of its first tokens, but not all, each text ends with, of each phrase."""
        width = self.phrases.shape[-1]
        sizes = jnp.sum(self.phrases >= 0, axis=-1)
        found = jnp.zeros((tokens.shape[0], sizes.shape[0]), jnp.int32)
        for count in range(1, width):
            # The first `count` tokens of each phrase, which is aligned at its end.
            place = width - sizes[:, None] + jnp.arange(count)[None]
            first = jnp.take_along_axis(self.phrases, jnp.minimum(place, width - 1), axis=-1)
            suffix = self._suffix(tokens, length, count)
            same = jnp.all(suffix[:, None] == first[None], axis=-1) & (sizes > count)[None]
            found = jnp.where(same, count, found)
        return found


def _check(constraint: Constraint, vocabulary: int) -> None:
    for phrase in constraint.phrases:
        if not len(phrase):
            raise SpecificationError("a phrase of a constraint is empty: give its tokens")
        if not all(0 <= token < vocabulary for token in phrase):
            raise SpecificationError(
                f"a phrase has the tokens {list(phrase)}, and the network's are 0 to "
                f"{vocabulary - 1}"
            )
    least, most = constraint.least, constraint.most
    if not constraint.phrases or least < 0 or (most is not None and most < least):
        raise SpecificationError(
            f"phrases cannot come at least {least} and at most {most} times: take numbers from 0 "
            "on, the first no larger, and at least one phrase"
        )
