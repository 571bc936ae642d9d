"""Sentences about people, in which what they do goes with who they are."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions, LabelledCompletions
from headwater.core.tokens import position_mask

Axis = Literal[0, 1]
_AXES, _GROUPS = 2, 2


class People(NamedTuple):
    """Sentences, and whom they are about.

    **Arguments:** `texts`; `profession`; `group`: on the first axis; `age`: the group on the second
    one.
    """

    texts: Completions
    profession: Int[Array, " row"]
    group: Int[Array, " row"]
    age: Int[Array, " row"]


class Biographies(eqx.Module):
    """Sentences of two words for the groups that somebody is of, and words about them in any order.

    There are two axes, `group` and `age`, of two groups each. Tokens are the words for groups, axis
    by axis and group by group; words about each profession; pastimes, of which one half goes with
    each group of an axis; and the end. A word about work is of the person's own profession with the
    probability `clarity`, or else of the one that it is told apart from: professions come in pairs.

    **Arguments:** `names`: words for each group; `words`: about each profession; `pastimes`: that
    go with each group; `pairs`: of professions; `told`: words about work in a sentence; `passed`:
    pastimes of each axis in a sentence; `clarity`. Raises `SpecificationError` for fewer than one
    of these, and for a clarity that is no probability.
    """

    names: int = eqx.field(static=True, default=3)
    words: int = eqx.field(static=True, default=4)
    pastimes: int = eqx.field(static=True, default=4)
    pairs: int = eqx.field(static=True, default=2)
    told: int = eqx.field(static=True, default=3)
    passed: int = eqx.field(static=True, default=2)
    clarity: float = eqx.field(static=True, default=0.75)

    def __check_init__(self):
        if min(self.names, self.words, self.pastimes, self.pairs, self.told, self.passed) < 1:
            raise SpecificationError("biographies have at least one word of each kind")
        if not 0.0 <= self.clarity <= 1.0:
            raise SpecificationError(f"clarity = {self.clarity:g} is a probability, from 0 to 1")

    @property
    def professions(self) -> int:
        """Number of professions."""
        return 2 * self.pairs

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.end + 1

    @property
    def end(self) -> int:
        """The token that ends a sentence."""
        return self._first_pastime + _AXES * _GROUPS * self.pastimes

    @property
    def length(self) -> int:
        """Tokens in a sentence, with the end."""
        return _AXES + self.told + _AXES * self.passed + 1

    @property
    def _first_word(self) -> int:
        return _AXES * _GROUPS * self.names

    @property
    def _first_pastime(self) -> int:
        return self._first_word + self.professions * self.words

    def people(
        self,
        rows: int,
        *,
        key: PRNGKeyArray,
        pair: int | Int[Array, ""] | None = None,
        by_group: float | Float[Array, ""] = 0.5,
        by_pastime: float | Float[Array, ""] = 0.5,
    ) -> People:
        """Sentences about `rows` people, of which each profession is equally frequent.

        **Arguments:** `pair`: of professions (default: all of them); `by_group`: the probability
        that somebody of the first profession of a pair is of the first group of the first axis, and
        of the second one of the second; `by_pastime`: that a pastime is one that goes with the
        group, on either axis.
        """
        keys = jax.random.split(key, 7)
        draw = lambda key, shape, count: jax.random.randint(key, shape, 0, count, jnp.int32)
        profession = draw(keys[0], (rows,), self.professions if pair is None else 2)
        profession = profession + (0 if pair is None else 2 * pair)
        usual = jax.random.bernoulli(keys[1], by_group, (rows,))
        group = jnp.where(usual, profession % 2, 1 - profession % 2).astype(jnp.int32)
        age = draw(keys[2], (rows,), _GROUPS)
        both = jnp.stack([group, age], axis=1)
        axis = jnp.broadcast_to(jnp.arange(_AXES, dtype=jnp.int32), both.shape)
        name = draw(keys[3], both.shape, self.names)
        name = (axis * _GROUPS + both) * self.names + name
        own_key, word_key, kept_key, pastime_key, order_key = jax.random.split(keys[4], 5)
        own = jax.random.bernoulli(own_key, self.clarity, (rows, self.told))
        other = profession + 1 - 2 * (profession % 2)
        about = jnp.where(own, profession[:, None], other[:, None])
        word = draw(word_key, about.shape, self.words)
        word = self._first_word + about * self.words + word
        shape = (rows, _AXES, self.passed)
        kept = jax.random.bernoulli(kept_key, by_pastime, shape)
        of_group = jnp.where(kept, both[..., None], 1 - both[..., None])
        pastime = draw(pastime_key, shape, self.pastimes)
        pastime = (axis[..., None] * _GROUPS + of_group) * self.pastimes + pastime
        pastime = self._first_pastime + pastime.reshape(rows, -1)
        said = jnp.concatenate([word, pastime], axis=1)
        # One sort, which compiles sooner than `jax.random.permutation`.
        order = jnp.argsort(jax.random.uniform(order_key, said.shape), axis=1)
        said = jnp.take_along_axis(said, order, axis=1)
        turned = jax.random.bernoulli(keys[5], shape=(rows, 1))
        name = jnp.where(turned, name[:, ::-1], name)
        end = jnp.full((rows, 1), self.end, jnp.int32)
        tokens = jnp.concatenate([name, said, end], axis=1).astype(jnp.int32)
        # The first token follows nothing.
        start = jnp.ones((rows,), jnp.int32)
        response = position_mask(start, jnp.full_like(start, self.length), self.length)
        return People(Completions(tokens, response), profession, group, age)

    def with_counterfactuals(self, texts: Completions, axis: Axis) -> Completions:
        """The sentences, and behind them the same with the words for an axis exchanged."""
        tokens, first = texts.tokens, axis * _GROUPS * self.names
        of_first = (tokens >= first) & (tokens < first + self.names)
        of_second = (tokens >= first + self.names) & (tokens < first + 2 * self.names)
        changed = tokens + jnp.where(of_first, self.names, 0) - jnp.where(of_second, self.names, 0)
        return Completions(
            jnp.concatenate([tokens, changed]),
            jnp.concatenate([texts.response, texts.response]),
        )

    def labelled(self, people: People) -> LabelledCompletions:
        """The sentences, called desirable where they are about the second profession of a pair."""
        return LabelledCompletions(people.texts, people.profession % 2 == 1)
