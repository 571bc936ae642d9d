"""What decides which page leaves a full cache: the contract, and the policies without marks."""

import abc
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

Advice = Literal["none", "discard", "phase", "next", "exact"]
"""What comes with each request: nothing; a bit, 1 where the optimum evicts the page before it is
requested again (`discard`) or where it is not requested in the next phase (`phase`); when it is
requested again (`next`), or truly so (`exact`, which is never given but looked up)."""


class Request(eqx.Module):
    """One request, or a sequence of them.

    **Arguments:** `page`; `time`: requests before it; `advice`: see `Advice`, zero if there is
    none; `next_request`: the time at which the page is requested again, the length of the sequence
    if it is not.
    """

    page: Int[Array, "*requests"]
    time: Int[Array, "*requests"]
    advice: Float[Array, "*requests"]
    next_request: Int[Array, "*requests"]


class AbstractEviction(eqx.Module):
    """A policy that serves requests one by one; its state has `pages`, -1 where a place is free."""

    advice: eqx.AbstractClassVar[Advice]

    @abc.abstractmethod
    def init(self, cache_size: int) -> Any:
        """The state of an empty cache of so many places."""

    @abc.abstractmethod
    def serve(self, state: Any, request: Request, *, key: PRNGKeyArray) -> Any:
        """The state after the page was brought in, for which another may have had to leave."""


class Ranked(eqx.Module):
    """The pages in the cache, and a time for each."""

    pages: Int[Array, " place"]
    times: Int[Array, " place"]


class LRU(AbstractEviction):
    """Evicts the page that was requested longest ago."""

    advice: ClassVar[Advice] = "none"

    def init(self, cache_size: int) -> Ranked:
        return empty_ranked(cache_size)

    def serve(self, state: Ranked, request: Request, *, key: PRNGKeyArray) -> Ranked:
        place = place_for(state.pages, request.page, -state.times)
        return Ranked(
            state.pages.at[place].set(request.page), state.times.at[place].set(request.time)
        )


class Belady(AbstractEviction):
    """Evicts the page that is requested again latest: the fewest faults that there can be.

    It sees the future, and is what others are compared with.

    **Reference:** Belady (1966), A study of replacement algorithms.
    """

    advice: ClassVar[Advice] = "exact"

    def init(self, cache_size: int) -> Ranked:
        return empty_ranked(cache_size)

    def serve(self, state: Ranked, request: Request, *, key: PRNGKeyArray) -> Ranked:
        place = place_for(state.pages, request.page, state.times)
        return Ranked(
            state.pages.at[place].set(request.page), state.times.at[place].set(request.next_request)
        )


def empty_ranked(cache_size: int) -> Ranked:
    """An empty cache."""
    return Ranked(jnp.full(cache_size, -1, jnp.int32), jnp.zeros(cache_size, jnp.int32))


def must_evict(pages: Int[Array, " place"], page: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether another page has to leave for this one: it is absent and no place is free."""
    return jnp.all(pages >= 0) & ~jnp.any(pages == page)


def place_for(
    pages: Int[Array, " place"], page: Int[Array, ""], badness: Shaped[Array, " place"]
) -> Int[Array, ""]:
    """Where a page is or will be: its own place, else a free one, else the worst."""
    here, free = pages == page, pages < 0
    otherwise = jnp.where(jnp.any(free), jnp.argmax(free), jnp.argmax(badness))
    return jnp.where(jnp.any(here), jnp.argmax(here), otherwise)
