"""Texts whose loss falls smoothly: facts to be remembered, chains of letters, and ciphers."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import position_mask
from headwater.environments.language.token_tasks import AbstractTextTask

_LETTERS = "abcdefghijklmnop"


class Facts(AbstractTextTask):
    """Facts of several domains: `Ccm=x.` says that in domain C the value of cm is x.

    Nothing about a fact follows from another one; the keys of domains overlap.

    **Arguments:** `key`: keys and values are drawn with it; `domains`: at most 8; `count`: facts in
    each, at most 256.
    """

    alphabet: ClassVar[str] = "ABCDEFGH" + _LETTERS + "qrstuvwxyz01" + "=."
    keys: Int[Array, "domain fact"]
    values: Int[Array, "domain fact"]

    def __init__(self, *, key: PRNGKeyArray, domains: int = 8, count: int = 16):
        if not (1 <= domains <= 8 and 1 <= count <= 256):
            raise SpecificationError(
                f"{domains} domains of {count} facts: there are at most 8 domains of 256 facts"
            )
        keys = jax.random.split(key, domains + 1)
        order = jax.vmap(lambda k: jax.random.permutation(k, 256))(keys[1:])
        self.keys = order[:, :count].astype(jnp.int32)
        self.values = jax.random.randint(keys[0], (domains, count), 0, 12, jnp.int32)

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        domain_key, fact_key = jax.random.split(key)
        domain = jax.random.randint(domain_key, (rows,), 0, self.keys.shape[0])
        return self.texts_of(domain, jax.random.randint(fact_key, (rows,), 0, self.keys.shape[1]))

    def every_text(self) -> Completions:
        """One text for each fact, those of a domain one after the other."""
        domains, count = self.keys.shape
        return self.texts_of(
            jnp.repeat(jnp.arange(domains), count), jnp.tile(jnp.arange(count), domains)
        )

    def texts_of(self, domain: Int[Array, " row"], fact: Int[Array, " row"]) -> Completions:
        """The texts of these facts."""
        rows = domain.shape[0]
        key, value = self.keys[domain, fact], self.values[domain, fact]
        sign = jnp.full((rows,), self.alphabet.index("="))
        end = jnp.full((rows,), self.end)
        tokens = jnp.stack([domain, 8 + key // 16, 8 + key % 16, sign, 24 + value, end], axis=1)
        return Completions(
            tokens.astype(jnp.int32), position_mask(jnp.full((rows,), 4), jnp.full((rows,), 6), 6)
        )


class MarkovTexts(AbstractTextTask):
    """Letters of which each depends on the two before it.

    Log-probabilities are normal numbers times `spread`, normalised. A model learns the letters'
    frequencies, then pairs, then triples: its loss falls for a long time and never suddenly.

    **Arguments:** `key`: the chain is drawn with it; `letters`: at most 16; `size`: of a text.
    """

    alphabet: ClassVar[str] = _LETTERS + "."
    logits: Float[Array, "letter letter letter"]
    size: int = eqx.field(static=True)

    def __init__(
        self, *, key: PRNGKeyArray, letters: int = 12, size: int = 24, spread: float = 2.0
    ):
        if not 1 <= letters <= 16:
            raise SpecificationError(f"{letters} letters: take 1 to 16")
        keys = jax.random.split(key)
        # Half of it depends on the last letter alone.
        last = jax.random.normal(keys[0], (1, letters, letters))
        both = jax.random.normal(keys[1], (letters, letters, letters))
        self.logits = spread * (jnp.broadcast_to(last, both.shape) + both) / 2**0.5
        self.size = size

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        first_key, key = jax.random.split(key)
        letters = self.logits.shape[0]
        start = jax.random.randint(first_key, (2, rows), 0, letters)

        def step(pair, key):
            following = jax.random.categorical(key, self.logits[pair[0], pair[1]])
            return (pair[1], following), following

        _, more = jax.lax.scan(step, (start[0], start[1]), jax.random.split(key, self.size - 2))
        end = jnp.full((rows, 1), self.end)
        tokens = jnp.concatenate([start.T, more.T, end], axis=1).astype(jnp.int32)
        stop = jnp.full((rows,), self.size)
        return Completions(tokens, position_mask(jnp.full((rows,), 2), stop, self.size + 1))

    @property
    def entropy(self) -> Float[Array, "letter letter"]:
        """Of the next letter after each pair: no model's loss is below its average."""
        chances = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(chances) * chances, axis=-1)


class NoisyCipher(AbstractTextTask):
    """A text and its translation: `abca=dgfe.`, with noise.

    Each letter is written by one of several ciphers; which one, the letter before it says (the
    first letter is its own). A share of the letters is written at random.

    **Arguments:** `key`: the ciphers are drawn with it; `ciphers`; `size`: letters of a text;
    `noise`: share of letters that are written at random.
    """

    alphabet: ClassVar[str] = _LETTERS + "=."
    table: Int[Array, "cipher letter"]
    size: int = eqx.field(static=True)
    noise: float = eqx.field(static=True)

    def __init__(self, *, key: PRNGKeyArray, ciphers: int = 4, size: int = 5, noise: float = 0.1):
        each = jax.vmap(lambda k: jax.random.permutation(k, 16))(jax.random.split(key, ciphers))
        self.table = each.astype(jnp.int32)
        self.size, self.noise = size, noise

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        letter_key, noise_key, which_key = jax.random.split(key, 3)
        shape = (rows, self.size)
        letters = jax.random.randint(letter_key, shape, 0, 16, jnp.int32)
        before = jnp.concatenate([letters[:, :1], letters[:, :-1]], axis=1)
        written = self.table[before % self.table.shape[0], letters]
        other = jax.random.randint(noise_key, shape, 0, 16, jnp.int32)
        written = jnp.where(jax.random.uniform(which_key, shape) < self.noise, other, written)
        sign = jnp.full((rows, 1), self.alphabet.index("="), jnp.int32)
        end = jnp.full((rows, 1), self.end, jnp.int32)
        tokens = jnp.concatenate([letters, sign, written, end], axis=1)
        start, width = jnp.full((rows,), self.size + 1), tokens.shape[1]
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))


class AlphabetCiphers(AbstractTextTask):
    """A text and its translation, each kind with letters and a cipher of its own: `abca=bcdb.`.

    Letters are in a ring. Kind $k$ has the four from the fourfold of $k$ on, and shares the
    `shared` letters after them with the next kind, which writes them in another way. Its cipher
    goes `shift[k]` letters on, among its own.

    **Arguments:** `key`: shifts are drawn with it; `kinds`: at most 6; `size`: letters of a text;
    `shared`: of each kind with the next one, at most 2.
    """

    alphabet: ClassVar[str] = _LETTERS + "qrstuvwx" + "=."
    shift: Int[Array, " kind"]
    chosen: Int[Array, " chosen"]
    """The kinds that texts are drawn of, all at first."""
    size: int = eqx.field(static=True)
    shared: int = eqx.field(static=True)

    def __init__(self, *, key: PRNGKeyArray, kinds: int = 6, size: int = 4, shared: int = 0):
        if not (2 <= kinds <= 6 and 0 <= shared <= 2):
            raise SpecificationError(
                f"{kinds} kinds of which each shares {shared} letters with the next: there are 2 "
                "to 6 kinds, which share at most 2"
            )
        self.shift = jax.random.randint(key, (kinds,), 1, 4 + shared, jnp.int32)
        self.chosen = jnp.arange(kinds)
        self.size, self.shared = size, shared

    def texts(self, rows: int, *, key: PRNGKeyArray) -> Completions:
        kind_key, key = jax.random.split(key)
        kind = self.chosen[jax.random.randint(kind_key, (rows,), 0, self.chosen.shape[0])]
        return self._translated(jnp.repeat(kind[:, None], self.size, axis=1), 0, key)

    def mixed_texts(
        self, first: Int[Array, " row"], second: Int[Array, " row"], *, key: PRNGKeyArray
    ) -> Completions:
        """Texts each of two kinds: every letter is of one of them, and of no other kind."""
        which_key, key = jax.random.split(key)
        shape = (first.shape[0], self.size)
        kind = jnp.where(
            jax.random.bernoulli(which_key, shape=shape), first[:, None], second[:, None]
        )
        return self._translated(kind, self.shared, key)

    def _translated(self, kind: Int[Array, "row letter"], lowest: int, key) -> Completions:
        """Letters of these kinds, from the place `lowest` among the letters of each kind on."""
        rows, own = kind.shape[0], 4 + self.shared
        place = jax.random.randint(key, kind.shape, lowest, own - lowest, jnp.int32)
        ring = 4 * self.shift.shape[0]
        letters = (4 * kind + place) % ring
        written = (4 * kind + (place + self.shift[kind]) % own) % ring
        sign = jnp.full((rows, 1), self.alphabet.index("="), jnp.int32)
        end = jnp.full((rows, 1), self.end, jnp.int32)
        tokens = jnp.concatenate([letters, sign, written, end], axis=1)
        start, width = jnp.full((rows,), self.size + 1), tokens.shape[1]
        return Completions(tokens, position_mask(start, jnp.full((rows,), width), width))
