"""Landscapes over words, in which letters and some pairs of them count."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractBlackBox

_MOST_WORDS = 2.0**25
"""So many are looked at for the best of them."""


class PairwiseInstance(eqx.Module):
    """What each letter brings at each site, what pairs of letters bring, and the best word's."""

    single: Float[Array, "site letter"]
    pairs: Float[Array, "site letter site letter"]
    highest: Float[Array, ""]


class PairwiseLandscape(AbstractBlackBox):
    """Words of `sites` letters, worth what their letters bring and what pairs of sites bring.

    All numbers are normal and divided by the root of how many are added, so that words differ by
    about one. Only some pairs of sites count. The maximum is exact.

    **Arguments:** `sites`, `letters`: a letter is a whole number from zero; `pair_share`: how
    probably a pair of sites counts; `noise`: of an evaluation; `seed`: of the instance.

    Raises `SpecificationError` for sizes that are too small or words too many to find the best.
    """

    name: ClassVar[str] = "pairwise-landscape"
    reference_returns: ClassVar[None] = None

    sites: int = eqx.field(static=True, default=8)
    letters: int = eqx.field(static=True, default=8)
    pair_share: float | Float[Array, ""] = 0.35
    noise: float | Float[Array, ""] = 0.0
    seed: int | Int[Array, ""] = 0

    def __check_init__(self):
        if self.sites < 2 or self.letters < 2:
            raise SpecificationError(
                f"sites = {self.sites}, letters = {self.letters}: at least 2 of each are needed"
            )
        if float(self.letters) ** self.sites > _MOST_WORDS:
            raise SpecificationError(
                f"sites = {self.sites}, letters = {self.letters}: the best of so many words cannot "
                "be found, take fewer"
            )

    @property
    def space(self) -> SearchSpace:
        ends = (0.0,) * self.sites, (self.letters - 1.0,) * self.sites
        return SearchSpace(*ends, whole=(True,) * self.sites)

    def reset(self) -> PairwiseInstance:
        single_key, pair_key, share_key = jax.random.split(jax.random.key(self.seed), 3)
        sites, letters = self.sites, self.letters
        single = jax.random.normal(single_key, (sites, letters))
        counts = jnp.triu(jax.random.uniform(share_key, (sites, sites)) < self.pair_share, 1)
        pairs = jax.random.normal(pair_key, (sites, letters, sites, letters))
        pairs = jnp.where(counts[:, None, :, None], pairs, 0.0)
        scale = jax.lax.rsqrt(sites + jnp.sum(counts).astype(jnp.float32))
        single, pairs = scale * single, scale * pairs
        return PairwiseInstance(single, pairs, self._highest(single, pairs))

    def mean_value(self, instance: PairwiseInstance, point, fidelity) -> Float[Array, ""]:
        word = jax.nn.one_hot(jnp.round(point).astype(jnp.int32), self.letters)
        paired = jnp.einsum("sl,slme,me->", word, instance.pairs, word, precision="highest")
        return jnp.sum(word * instance.single) + paired

    def highest(self, instance: PairwiseInstance) -> Float[Array, ""]:
        return instance.highest

    def _highest(self, single: Array, pairs: Array) -> Float[Array, ""]:
        """The best of all words: each of the first halves with each of the second."""
        half = self.sites // 2

        def worth(words, place):
            """Of letters and pairs within one half."""
            inner = pairs[place][:, :, place]
            paired = jnp.einsum("wsl,slme,wme->w", words, inner, words, precision="highest")
            return jnp.einsum("wsl,sl->w", words, single[place], precision="highest") + paired

        first, second = self._words(half), self._words(self.sites - half)
        across = jnp.einsum("wsl,slme->wme", first, pairs[:half][:, :, half:], precision="highest")
        other = second.reshape(second.shape[0], -1)
        ends = worth(second, slice(half, None))
        begins = worth(first, slice(0, half))

        def best_with(given):
            begin, crossing = given
            return begin + jnp.max(ends + jnp.matmul(other, crossing, precision="highest"))

        return jnp.max(jax.lax.map(best_with, (begins, across.reshape(len(first), -1))))

    def _words(self, sites: int) -> Float[Array, "word site letter"]:
        """All words of so many letters."""
        words = np.indices((self.letters,) * sites).reshape(sites, -1).T
        return jnp.asarray(np.eye(self.letters, dtype=np.float32)[words])
