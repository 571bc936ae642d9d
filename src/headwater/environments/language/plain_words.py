"""Sentences of hard words that have plain synonyms, to be simplified."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions, LabelledCompletions
from headwater.core.tokens import AbstractCompletionReward, position_mask


class PlainWords(eqx.Module):
    """Sentences of words of which some are hard, each with a plain synonym.

    Tokens are the hard words, then their plain synonyms in the same order, then words that are
    neither, a mark between prompt and response, and the end. Half of the words of a sentence are
    hard or plain; in an original sentence four fifths of these are hard.

    **Arguments:** `characters`: of each word, drawn with `key`: 6 to 12 of hard words, 3 to 6 of
    plain ones, and of the pairs in `misleading` the other way round; 2 or 3 of other words;
    `pairs`: of synonyms; `others`: words that are neither; `size`: words of a sentence. Raises
    `SpecificationError` for fewer than one.
    """

    characters: Float[Array, " token"]
    pairs: int = eqx.field(static=True)
    others: int = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        key: PRNGKeyArray,
        pairs: int = 30,
        others: int = 10,
        size: int = 8,
        misleading: float = 0.2,
    ):
        if min(pairs, others, size) < 1:
            raise SpecificationError(
                f"{pairs} pairs of words, {others} others and {size} words in a sentence: take at "
                "least one of each"
            )
        hard_key, plain_key, other_key = jax.random.split(key, 3)
        hard = jax.random.randint(hard_key, (pairs,), 6, 13)
        plain = jax.random.randint(plain_key, (pairs,), 3, 7)
        swapped = jnp.arange(pairs) < round(misleading * pairs)
        rest = jax.random.randint(other_key, (others,), 2, 4)
        self.characters = jnp.concatenate(
            [
                jnp.where(swapped, plain, hard),
                jnp.where(swapped, hard, plain),
                rest,
                jnp.zeros(2, rest.dtype),
            ]
        ).astype(jnp.float32)
        self.pairs, self.others, self.size = pairs, others, size

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return 2 * self.pairs + self.others + 2

    @property
    def mark(self) -> int:
        """The token between prompt and response."""
        return self.vocabulary - 2

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return self.vocabulary - 1

    def originals(self, rows: int, *, key: PRNGKeyArray) -> Int[Array, "row word"]:
        """Sentences as they are before anybody simplifies them."""
        which_key, hard_key, word_key, other_key = jax.random.split(key, 4)
        shape = (rows, self.size)
        word = jax.random.randint(word_key, shape, 0, self.pairs, jnp.int32)
        plain = ~jax.random.bernoulli(hard_key, 0.8, shape)
        other = jax.random.randint(other_key, shape, 0, self.others, jnp.int32)
        content = jax.random.bernoulli(which_key, 0.5, shape)
        return jnp.where(content, word + self.pairs * plain, 2 * self.pairs + other)

    def rewritten(
        self,
        sentence: Int[Array, "row word"],
        simplified: float,
        complicated: float = 0.0,
        *,
        key: PRNGKeyArray,
    ) -> Int[Array, "row word"]:
        """The same with a share of the hard words made plain, and of the plain ones made hard."""
        chance = jax.random.uniform(key, sentence.shape)
        hard = sentence < self.pairs
        plain = ~hard & (sentence < 2 * self.pairs)
        change = jnp.where(hard & (chance < simplified), self.pairs, 0)
        return sentence + change - jnp.where(plain & (chance < complicated), self.pairs, 0)

    def texts(
        self, sentence: Int[Array, "row word"], response: Int[Array, "row word"]
    ) -> Completions:
        """Prompts, which are sentences and a mark, and responses, which end."""
        rows = sentence.shape[0]
        mark, end = (jnp.full((rows, 1), token, jnp.int32) for token in (self.mark, self.end))
        tokens = jnp.concatenate([sentence, mark, response, end], axis=1).astype(jnp.int32)
        start, width = jnp.full((rows,), self.size + 1), tokens.shape[1]
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))

    def labelled(self, texts: Completions) -> LabelledCompletions:
        """The responses, called desirable, and their own prompts as responses that are not."""
        original = texts.tokens[:, : self.size]
        same = self.texts(original, original)
        both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), texts, same)
        rows = texts.tokens.shape[0]
        return LabelledCompletions(both, jnp.arange(2 * rows) < rows)

    def simplified(self, data: Completions) -> Float[Array, "*batch"]:
        """The share of the hard words of each prompt for which there is the plain synonym."""
        before, after = self._counts(data)
        hard, plain = before[..., : self.pairs], after[..., self.pairs : 2 * self.pairs]
        # A plain word that the prompt has already stands for itself.
        plain = plain - before[..., self.pairs : 2 * self.pairs]
        done = jnp.sum(jnp.clip(plain, 0.0, hard), axis=-1)
        return done / jnp.maximum(jnp.sum(hard, axis=-1), 1.0)

    def preserved(self, data: Completions) -> Float[Array, "*batch"]:
        """The share of meanings that prompt and response have in common, of the longer of both.

        Synonyms have the same meaning; order has none.
        """
        before, after = (self._meanings(counts) for counts in self._counts(data))
        common = jnp.sum(jnp.minimum(before, after), axis=-1)
        return common / jnp.maximum(
            jnp.maximum(jnp.sum(before, axis=-1), jnp.sum(after, axis=-1)), 1.0
        )

    def _counts(self, data: Completions) -> tuple[Array, Array]:
        """How often each word is in the prompt, and in the response."""
        words = jax.nn.one_hot(data.tokens, self.vocabulary)[..., : self.vocabulary - 2]
        prompt = position_mask(
            jnp.zeros_like(data.tokens[..., 0]),
            jnp.argmax(jnp.asarray(data.response), axis=-1),
            data.tokens.shape[-1],
        )
        before, after = (
            jnp.einsum("...pv,...p->...v", words, mask.astype(words.dtype))
            for mask in (prompt, jnp.asarray(data.response))
        )
        return before, after

    def _meanings(self, counts: Float[Array, "*batch word"]) -> Float[Array, "*batch meaning"]:
        hard, plain, rest = jnp.split(counts, (self.pairs, 2 * self.pairs), axis=-1)
        return jnp.concatenate([hard + plain, rest], axis=-1)


class Preservation(AbstractCompletionReward):
    """`PlainWords.preserved`, as a reward from 0 to 1."""

    task: PlainWords

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        return self.task.preserved(data)


class ShortWords(AbstractCompletionReward):
    """Less the characters of a word on average, over ten, as formulas of readability see it."""

    task: PlainWords

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        word = jnp.asarray(data.response) & (jnp.asarray(data.tokens) < self.task.mark)
        characters = jnp.where(word, self.task.characters[data.tokens], 0.0)
        count = jnp.maximum(jnp.sum(word, axis=-1), 1)
        return -0.1 * jnp.sum(characters, axis=-1) / count
