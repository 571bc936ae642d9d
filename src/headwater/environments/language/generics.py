"""Statements about kinds of things, true and false, of which a small world decides."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, Prompts, position_mask


class Generics(eqx.Module):
    """Concepts in families, and the properties that they have: "birds can fly".

    A concept has the properties of its family, except that some are turned round for it alone. Each
    family has at least one. Tokens are the concepts, the properties, the word between them, words
    of function, connectives, and the end. A plain statement is a concept, the word between,
    perhaps one word of function, and a property.

    **Arguments:** `true`: which properties each concept has, drawn with `key`: a share `density`
    of those of families, of which a share `exceptions` is turned round; `families`; `members`: of
    each; `properties`; `functions`, `connectives`: words of these kinds. Raises
    `SpecificationError` for fewer than one.
    """

    true: Bool[Array, "concept property"]
    families: int = eqx.field(static=True)
    members: int = eqx.field(static=True)
    properties: int = eqx.field(static=True)
    functions: int = eqx.field(static=True)
    connectives: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        key: PRNGKeyArray,
        families: int = 12,
        members: int = 5,
        properties: int = 8,
        functions: int = 2,
        connectives: int = 2,
        density: float = 0.3,
        exceptions: float = 0.1,
    ):
        if min(families, members, properties, functions, connectives) < 1:
            raise SpecificationError("a world of statements has at least one of everything")
        family_key, first_key, turn_key = jax.random.split(key, 3)
        of_family = jax.random.bernoulli(family_key, density, (families, properties))
        sure = jax.random.randint(first_key, (families,), 0, properties)
        of_family = of_family | jax.nn.one_hot(sure, properties, dtype=bool)
        own = jnp.repeat(of_family, members, axis=0)
        turned = own ^ jax.random.bernoulli(turn_key, exceptions, own.shape)
        # Nobody is without any.
        self.true = jnp.where(jnp.any(turned, axis=-1, keepdims=True), turned, own)
        self.families, self.members, self.properties = families, members, properties
        self.functions, self.connectives = functions, connectives

    @property
    def concepts(self) -> int:
        """Number of concepts, which are the first tokens."""
        return self.families * self.members

    @property
    def between(self) -> int:
        """The word between a concept and its property."""
        return self.concepts + self.properties

    @property
    def function_words(self) -> range:
        """Tokens of which a plain statement has at most one."""
        return range(self.between + 1, self.between + 1 + self.functions)

    @property
    def connective_words(self) -> range:
        """Tokens that a plain statement does not have."""
        first = self.between + 1 + self.functions
        return range(first, first + self.connectives)

    @property
    def end(self) -> int:
        """The token that ends a statement."""
        return self.between + 1 + self.functions + self.connectives

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.end + 1

    @property
    def length(self) -> int:
        """Tokens of the longest text."""
        return 9

    def texts(
        self,
        rows: int,
        *,
        key: PRNGKeyArray,
        truth: float | Float[Array, ""] = 0.85,
        clutter: float | Float[Array, ""] = 0.3,
    ) -> Completions:
        """What is said about concepts, to be learned from after the concept and the next word.

        **Arguments:** `truth`: share of properties that are true; `clutter`: share of texts that
        are no plain statements: two properties with a connective, or two words of function.
        """
        keys = jax.random.split(key, 8)
        concept = jax.random.randint(keys[0], (rows,), 0, self.concepts)
        whether = jax.random.bernoulli(keys[1], truth, (rows, 2))
        true = self.true[concept]
        right = jnp.where(true, 0.0, -jnp.inf)
        # Where everything is true, nothing else can be said.
        wrong = jnp.where(true & ~jnp.all(true, axis=-1, keepdims=True), -jnp.inf, 0.0)
        logits = jnp.where(whether[..., None], right[:, None], wrong[:, None])
        said = self.concepts + jax.random.categorical(keys[2], logits, axis=-1)
        words = jnp.asarray([*self.function_words])[
            jax.random.randint(keys[3], (rows, 2), 0, self.functions)
        ]
        joined = jnp.asarray([*self.connective_words])[
            jax.random.randint(keys[4], (rows,), 0, self.connectives)
        ]
        cluttered = jax.random.bernoulli(keys[5], clutter, (rows,))
        twofold = jax.random.bernoulli(keys[6], 0.5, (rows,))
        one_word = jax.random.bernoulli(keys[7], 0.5, (rows,))
        end = jnp.full(rows, self.end)
        between = jnp.full(rows, self.between)
        pad = lambda *x: jnp.stack([concept, between, *x, *[end] * (7 - len(x))], axis=1)
        bare, worded = pad(said[:, 0]), pad(words[:, 0], said[:, 0])
        double = pad(words[:, 0], words[:, 1], said[:, 0])
        both = pad(said[:, 0], joined, said[:, 1])
        plain = jnp.where(one_word[:, None], worded, bare)
        odd = jnp.where(twofold[:, None], both, double)
        tokens = jnp.where(cluttered[:, None], odd, plain).astype(jnp.int32)
        stop = jnp.argmax(tokens == self.end, axis=1) + 1
        return Completions(tokens, position_mask(jnp.full_like(stop, 2), stop, self.length))

    def prompts(self, samples: int = 1) -> Prompts:
        """The beginnings of all plain statements, each so many times."""
        concept = jnp.repeat(jnp.arange(self.concepts, dtype=jnp.int32), samples)
        tokens = jnp.stack([concept, jnp.full_like(concept, self.between)], axis=1)
        return Prompts(tokens, jnp.full(concept.shape, 2, jnp.int32))

    def stated(self, data: Completions) -> tuple[Bool[Array, "*batch"], Int[Array, "*batch"]]:
        """Whether a text is one plain statement, and the number of its property (if it has one)."""
        tokens, response = jnp.asarray(data.tokens), jnp.asarray(data.response)
        count = lambda first, past: jnp.sum(response & (tokens >= first) & (tokens < past), axis=-1)
        words, joined = self.function_words, self.connective_words
        one = count(self.concepts, self.between) == 1
        few = count(words.start, words.stop) <= 1
        none = count(joined.start, joined.stop) == 0
        # Neither the concept nor the word after it comes again, and the text ends.
        again = count(0, self.concepts) + count(self.between, self.between + 1) == 0
        ended = count(self.end, self.end + 1) == 1
        is_property = response & (tokens >= self.concepts) & (tokens < self.between)
        place = jnp.argmax(is_property, axis=-1)
        number = jnp.take_along_axis(tokens, place[..., None], axis=-1)[..., 0] - self.concepts
        # The property stands just before the end.
        size = jnp.sum(response, axis=-1)
        last = place == jnp.argmax(response, axis=-1) + size - 2
        plain = one & few & none & again & ended & last
        return plain, jnp.clip(number, 0, self.properties - 1)

    def valid(self, data: Completions) -> Bool[Array, "*batch"]:
        """Whether a text is a plain statement that is true."""
        plain, number = self.stated(data)
        return plain & self.true[jnp.clip(data.tokens[..., 0], 0, self.concepts - 1), number]


class StatementCritic(AbstractCompletionReward):
    """Says 1 of statements that it takes for true, -1 of others; it errs about the same ones.

    **Arguments:** `world`; `believed`: which properties it takes each concept to have.
    """

    world: Generics
    believed: Bool[Array, "concept property"]

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        plain, number = self.world.stated(data)
        concept = jnp.clip(data.tokens[..., 0], 0, self.world.concepts - 1)
        return jnp.where(plain & self.believed[concept, number], 1.0, -1.0)


def critic(
    world: Generics, accuracy: float | Float[Array, ""], *, key: PRNGKeyArray
) -> StatementCritic:
    """A critic who is right about such a share of all pairs of concept and property."""
    wrong = ~jax.random.bernoulli(key, accuracy, world.true.shape)
    return StatementCritic(world, world.true ^ wrong)
