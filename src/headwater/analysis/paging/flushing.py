"""Eviction by a bit for each request, without randomness."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.analysis.paging.policy import (
    AbstractEviction,
    Advice,
    Request,
    must_evict,
    place_for,
)


class Discarding(eqx.Module):
    """The pages in the cache, and the last bit of each."""

    pages: Int[Array, " place"]
    bits: Float[Array, " place"]


class FlushWhenAllZero(AbstractEviction):
    """Evicts a page whose last bit is 1; if there is none, the whole cache.

    Its bits say of each request whether the optimum evicts the page before it is requested again.
    It faults at most OPT + (k - 1) η₀ + η₁ times (η₀ bits are wrongly 0, η₁ wrongly 1).

    **Reference:** Antoniadis et al. (2023), arXiv:2210.02775.
    """

    advice: ClassVar[Advice] = "discard"

    def init(self, cache_size: int) -> Discarding:
        return Discarding(jnp.full(cache_size, -1, jnp.int32), jnp.zeros(cache_size))

    def serve(self, state: Discarding, request: Request, *, key: PRNGKeyArray) -> Discarding:
        evicts = must_evict(state.pages, request.page)
        flushed = evicts & jnp.all(state.bits < 0.5)
        pages = jnp.where(flushed, -1, state.pages)
        place = place_for(pages, request.page, state.bits)
        return Discarding(
            pages.at[place].set(request.page), state.bits.at[place].set(request.advice)
        )
