"""Texts that are made rather than downloaded: arithmetic, copying, and primitives of reasoning.

A task draws as many texts as one likes from a key, all of the same width, compiled into the loop.
"""

import abc
import functools
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.fields import check_fields
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, Prompts, position_mask


class AbstractTextTask(eqx.Module):
    """Prompts with the responses that are right."""

    alphabet: eqx.AbstractClassVar[str]
    """The characters that tokens stand for, the ending one last."""

    @abc.abstractmethod
    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        """Fresh prompts with the right responses, which end with the last token."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self.alphabet)

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return len(self.alphabet) - 1

    def spell(self, tokens: Int[Array | np.ndarray, " position"]) -> str:
        """The text that tokens stand for."""
        return "".join(self.alphabet[int(token)] for token in np.asarray(tokens))


def prompts_of(data: Completions, width: int) -> Prompts:
    """The texts without their responses, at most `width` tokens of each."""
    start = jnp.argmax(jnp.asarray(data.response), axis=-1).astype(jnp.int32)
    kept = position_mask(jnp.zeros_like(start), start, data.tokens.shape[-1])
    return Prompts(jnp.where(kept, data.tokens, 0)[..., :width], start)


def everywhere(data: Completions) -> Completions:
    """The same texts, to be learned from the second token on: for training from scratch."""
    response = jnp.asarray(data.response)
    last = response.shape[-1] - 1 - jnp.argmax(response[..., ::-1], axis=-1)
    return Completions(
        data.tokens, position_mask(jnp.ones_like(last), last + 1, response.shape[-1])
    )


def correct(written: Completions, right: Completions) -> Bool[Array, "*batch"]:
    """Whether a written response is the right one, its ending included."""
    width = right.tokens.shape[-1]
    same = written.tokens[..., :width] == right.tokens
    extent = written.response[..., :width] == right.response
    return jnp.all(extent & (same | ~right.response), axis=-1)


class ExactMatch(AbstractCompletionReward):
    """Reward 1 for the right response to a prompt that is in a list, else 0.

    **Arguments:** `right`: `[row, position]`; prompts are told apart by all of their tokens.
    """

    right: Completions

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        width = min(self.right.tokens.shape[-1], data.tokens.shape[-1])
        right = jax.tree.map(lambda x: jnp.asarray(x)[:, :width], self.right)

        def one(tokens, response):
            tokens, response = tokens[:width], response[:width]
            in_prompt = ~right.response & position_mask(
                jnp.zeros(right.tokens.shape[0], jnp.int32),
                jnp.argmax(right.response, axis=-1),
                width,
            )
            same = right.tokens == jnp.broadcast_to(tokens, right.tokens.shape)
            same_prompt = jnp.all(same | ~in_prompt, axis=-1)
            same_response = jnp.all(same | ~right.response, axis=-1)
            given = jnp.broadcast_to(response, right.response.shape)
            extent = jnp.all(right.response == given, axis=-1)
            return jnp.any(same_prompt & same_response & extent).astype(jnp.float32)

        flat = [x.reshape(-1, x.shape[-1]) for x in (data.tokens, data.response)]
        return jax.vmap(one)(*flat).reshape(data.tokens.shape[:-1])


# Arithmetic -------------------------------------------------------------------------------------

Form = Literal["plain", "reverse", "scratchpad", "detailed"]


class Addition(AbstractTextTask):
    """Sums of two numbers of a fixed width, in the formats of Lee et al. (2023), arXiv:2307.03381.

    `plain`: `12+93=105.`; `reverse`: `12+93=501.`, lowest digit first, as one adds by hand;
    `scratchpad`: for each digit from the lowest the sum's digit and the carry, then the sum:
    `12+93=50|01|105.`; `detailed`: for each digit what is left of both numbers, the answer so far,
    the carry, and the sum of digits and carry, as the paper does with brackets and names:
    `12+93=12+93=|0|2+3+0=05|1+9=5|0|1+9+0=10|+=05|1|105.`.

    **Arguments:** `digits`: of each number, with zeros in front; `form`; `first`, `count`: the
    pairs to draw from, as a range of a fixed order in which pairs are shuffled (default: all), so
    that ranges which do not overlap have no pair in common.
    """

    alphabet: ClassVar[str] = "0123456789+=|."
    digits: int = eqx.field(static=True, default=2)
    form: Form = eqx.field(static=True, default="plain")
    first: int = eqx.field(static=True, default=0)
    count: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_fields(self)
        pairs = 10 ** (2 * self.digits)
        last = self.first + (pairs - self.first if self.count is None else self.count)
        if self.digits < 1 or self.digits > 3 or not 0 <= self.first < last <= pairs:
            raise SpecificationError(
                f"there are {pairs} pairs of {self.digits} digits (1 to 3 digits are possible), of "
                f"which {self.first} to {last} cannot be taken"
            )

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        return self.texts_of(jax.random.randint(key, (rows,), 0, self.pairs))

    @property
    def pairs(self) -> int:
        """How many pairs are drawn from."""
        return 10 ** (2 * self.digits) - self.first if self.count is None else self.count

    def every_text(self) -> Completions:
        """One text for each pair."""
        return self.texts_of(jnp.arange(self.pairs))

    def texts_of(self, index: Int[Array, " row"]) -> Completions:
        """The texts of these pairs, counted in the fixed order."""
        half = 10**self.digits
        order = jnp.asarray(_shuffled(half**2))[index + self.first]
        left, right = order // half, order % half
        total = left + right
        addends = [_digits(left, self.digits), self._sign("+"), _digits(right, self.digits)]
        response = self._response(left, right, total)
        parts = [*addends, self._sign("="), *response, self._sign(".")]
        rows = index.shape[0]
        tokens = jnp.concatenate([jnp.broadcast_to(p, (rows, p.shape[-1])) for p in parts], axis=1)
        prompt = jnp.full((rows,), 2 * self.digits + 2)
        width = tokens.shape[-1]
        return Completions(tokens, position_mask(prompt, jnp.full((rows,), width), width))

    def _response(self, left, right, total) -> list[Array]:
        whole = _digits(total, self.digits + 1)
        if self.form == "plain":
            return [whole]
        if self.form == "reverse":
            return [whole[:, ::-1]]
        if self.form == "detailed":
            return [*self._steps(left, right, total), whole]
        parts, carry = [], jnp.zeros_like(left)
        for place in range(self.digits):
            carry = (left // 10**place % 10 + right // 10**place % 10 + carry) // 10
            parts += [total[:, None] // 10**place % 10, carry[:, None], self._sign("|")]
        return [*parts, whole]

    def _steps(self, left, right, total) -> list[Array]:
        plus, equal, bar = (self._sign(character) for character in "+=|")
        parts, carry = [], jnp.zeros_like(left)
        for place in range(self.digits + 1):
            power, rest = 10**place, self.digits - place
            a, b = left // power, right // power
            parts += [_digits(a, rest), plus, _digits(b, rest), equal]
            parts += [_digits(total % power, place), bar, carry[:, None], bar]
            if rest:
                ours, theirs = a % 10, b % 10
                found = ours + theirs + carry
                parts += [ours[:, None], plus, theirs[:, None], plus, carry[:, None], equal]
                parts += [_digits(found, 2), bar]
                carry = found // 10
        return parts

    def _sign(self, character: str) -> Array:
        return jnp.asarray([[self.alphabet.index(character)]])


@functools.cache
def _shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count).astype(np.int32)


def _digits(number: Int[Array, " row"], count: int) -> Int[Array, "row digit"]:
    return number[:, None] // 10 ** jnp.arange(count - 1, -1, -1)[None] % 10


# Copying ----------------------------------------------------------------------------------------


class Copying(AbstractTextTask):
    """A random string to be written again, or backwards.

    **Arguments:** `longest`: strings have between one and so many letters; `backwards`.
    """

    alphabet: ClassVar[str] = "abcdefgh=."
    longest: int = eqx.field(static=True, default=8)
    backwards: bool = eqx.field(static=True, default=False)

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        length_key, key = jax.random.split(key)
        length = jax.random.randint(length_key, (rows,), 1, self.longest + 1)
        letters = jax.random.randint(key, (rows, self.longest), 0, len(self.alphabet) - 2)
        width = 2 * self.longest + 2
        place = jnp.broadcast_to(jnp.arange(width), (rows, width))
        length = length[:, None]
        again = place - length - 1
        source = length - 1 - again if self.backwards else again
        source = jnp.where(place < length, place, jnp.clip(source, 0, self.longest - 1))
        tokens = jnp.take_along_axis(letters, jnp.minimum(source, self.longest - 1), axis=1)
        tokens = jnp.where(place == length, self.alphabet.index("="), tokens)
        tokens = jnp.where(place == 2 * length + 1, self.end, tokens)
        response = position_mask(length[:, 0] + 1, 2 * length[:, 0] + 2, width)
        return Completions(tokens, response)


class ShiftedCopies(AbstractTextTask):
    """Random tokens, then the same turned around by one place, then sums of neighbours.

    A corpus for training from scratch on which depth helps: it needs copying by place, and
    composing two of what was copied. All of it is response but the random part.

    **Arguments:** `size`: random tokens in each text.
    """

    alphabet: ClassVar[str] = "abcdefghijklmnopqrstuv=."
    size: int = eqx.field(static=True, default=10)

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        letters = len(self.alphabet) - 2
        drawn = jax.random.randint(key, (rows, self.size), 0, letters)
        turned = jnp.roll(drawn, -1, axis=1)
        summed = (turned[:, :-1] + turned[:, 1:]) % letters
        sign = jnp.full((rows, 1), self.alphabet.index("="))
        end = jnp.full((rows, 1), self.end)
        tokens = jnp.concatenate([drawn, sign, turned, summed, end], axis=1)
        start, width = jnp.full((rows,), self.size + 1), tokens.shape[-1]
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))


# Primitives of reasoning ------------------------------------------------------------------------


class Assignments(AbstractTextTask):
    """Variables are given values or each other, and one is asked for: `a=5;b=a;c=7;b?5.`.

    After Saunshi et al. (2024), arXiv:2409.19044. Half of the variables hold digits. At depth `d`
    the one that is asked for leads to its digit over `d` others; the rest distract. The order of
    the assignments is drawn, but a variable always comes after the one that it is given.

    **Arguments:** `depth`: 0, 1 or 2; `chains`: how many there are, one of them asked for.
    """

    alphabet: ClassVar[str] = "0123456789abcdefghijkl=;?."
    depth: int = eqx.field(static=True, default=1)
    chains: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        if not (0 <= self.depth <= 2 and 1 <= self.chains <= 12 // (self.depth + 1)):
            raise SpecificationError(
                f"depth = {self.depth} must be 0, 1 or 2, and {self.chains} chains of it need "
                "twelve variables at most"
            )

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        tokens = jax.vmap(self._one)(jax.random.split(key, rows))
        width = tokens.shape[-1]
        start = jnp.full((rows,), width - 2)
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))

    def _one(self, key: PRNGKeyArray) -> Int[Array, " position"]:
        name_key, value_key, order_key, query_key = jax.random.split(key, 4)
        links = self.depth + 1
        names = 10 + jax.random.permutation(name_key, 12)[: self.chains * links]
        names = names.reshape(self.chains, links)
        values = jax.random.permutation(value_key, 10)[: self.chains]
        given = jnp.concatenate([values[:, None], names[:, :-1]], axis=1)
        # Assignments of all chains are mixed; sorting the times within a chain keeps its order.
        times = jnp.sort(jax.random.uniform(order_key, (self.chains, links)), axis=1)
        order = jnp.argsort(times.reshape(-1))
        names, given = names.reshape(-1), given.reshape(-1)
        sign = jnp.full_like(names, self.alphabet.index("="))
        stop = jnp.full_like(names, self.alphabet.index(";"))
        written = jnp.stack([names, sign, given, stop], axis=1)[order].reshape(-1)
        queried = jax.random.randint(query_key, (), 0, self.chains)
        question = jnp.stack(
            [
                names.reshape(self.chains, links)[queried, -1],
                jnp.asarray(self.alphabet.index("?")),
                values[queried],
                jnp.asarray(self.end),
            ]
        )
        return jnp.concatenate([written, question])


class Induction(AbstractTextTask):
    """A string that begins again and is to be continued: `kdpaqz=dpa.`-like copying by content.

    After Saunshi et al. (2024), arXiv:2409.19044. All letters of the string differ.

    **Arguments:** `size`: letters in the string; `cue`: letters of it that are repeated;
    `continuation`: how many of the letters after those are to be written.
    """

    alphabet: ClassVar[str] = "abcdefghijklmnopqrstuvwx=."
    size: int = eqx.field(static=True, default=10)
    cue: int = eqx.field(static=True, default=2)
    continuation: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        if (
            self.cue < 1
            or self.continuation < 1
            or not self.cue + self.continuation <= self.size <= 24
        ):
            raise SpecificationError(
                f"a string of {self.size} of 24 letters has no room for a cue of {self.cue} and "
                f"{self.continuation} more"
            )

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        tokens = jax.vmap(self._one)(jax.random.split(key, rows))
        width = tokens.shape[-1]
        start = jnp.full((rows,), self.size + 1 + self.cue)
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))

    def _one(self, key: PRNGKeyArray) -> Int[Array, " position"]:
        letter_key, place_key = jax.random.split(key)
        letters = jax.random.permutation(letter_key, 24)[: self.size]
        again = self.cue + self.continuation
        place = jax.random.randint(place_key, (), 0, self.size - again + 1)
        repeated = jax.lax.dynamic_slice(letters, (place,), (again,))
        sign = jnp.asarray([self.alphabet.index("=")])
        return jnp.concatenate([letters, sign, repeated, jnp.asarray([self.end])])


class WordProblems(AbstractTextTask):
    """One or two sums about things that were counted before: `a3b5c2:a+b?8.`.

    After the pre-school mathematics of Saunshi et al. (2024), arXiv:2409.19044. Results are modulo
    ten, so that they are one digit.

    **Arguments:** `operations`: sums in the question, 1 or 2; `things`: that were counted.
    """

    alphabet: ClassVar[str] = "0123456789abcdefghijkl:+?."
    operations: int = eqx.field(static=True, default=1)
    things: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        if self.operations not in (1, 2) or not self.operations < self.things <= 12:
            raise SpecificationError(
                f"{self.operations} operations (1 or 2) need more things than that, and at most "
                f"twelve, not {self.things}"
            )

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        tokens = jax.vmap(self._one)(jax.random.split(key, rows))
        width = tokens.shape[-1]
        start = jnp.full((rows,), width - 2)
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))

    def _one(self, key: PRNGKeyArray) -> Int[Array, " position"]:
        name_key, value_key, query_key = jax.random.split(key, 3)
        names = 10 + jax.random.permutation(name_key, 12)[: self.things]
        values = jax.random.randint(value_key, (self.things,), 0, 10)
        queried = jax.random.permutation(query_key, self.things)[: self.operations + 1]
        plus = jnp.full((self.operations + 1,), self.alphabet.index("+"))
        question = jnp.stack([names[queried], plus], axis=1).reshape(-1)[:-1]
        return jnp.concatenate(
            [
                jnp.stack([names, values], axis=1).reshape(-1),
                jnp.asarray([self.alphabet.index(":")]),
                question,
                jnp.asarray([self.alphabet.index("?")]),
                jnp.sum(values[queried])[None] % 10,
                jnp.asarray([self.end]),
            ]
        )
