"""Policies that mark what was requested in a phase, and evict among the pages without a mark."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.analysis.paging.policy import (
    AbstractEviction,
    Advice,
    Request,
    must_evict,
    place_for,
)


class Marked(eqx.Module):
    """The pages in the cache, which of them have a mark, and the last bit of each."""

    pages: Int[Array, " place"]
    marked: Bool[Array, " place"]
    bits: Float[Array, " place"]


class Marker(AbstractEviction):
    """Evicts a random page without a mark; when all have one, a new phase begins without marks.

    **Reference:** Fiat, Karp, Luby, McGeoch, Sleator and Young (1991), Competitive paging
    algorithms.
    """

    advice: ClassVar[Advice] = "none"

    def init(self, cache_size: int) -> Marked:
        return _empty(cache_size)

    def serve(self, state: Marked, request: Request, *, key: PRNGKeyArray) -> Marked:
        return _serve_marked(state, request, jnp.zeros_like(state.bits), key=key)


class MarkAndPredict(AbstractEviction):
    """MARKER which evicts, among the pages without a mark, one that the next phase does not need.

    Its bits say of each request whether the page is absent from the next phase. It faults at most
    2 OPT + H_k η₀ + η₁ times in expectation (η₀ bits are wrongly 0, η₁ wrongly 1), and O(log k) OPT
    times whatever the bits say.

    **Reference:** Antoniadis et al. (2023), arXiv:2210.02775, MARK&PREDICT.
    """

    advice: ClassVar[Advice] = "phase"

    def init(self, cache_size: int) -> Marked:
        return _empty(cache_size)

    def serve(self, state: Marked, request: Request, *, key: PRNGKeyArray) -> Marked:
        return _serve_marked(state, request, state.bits, key=key)


class MarkZero(AbstractEviction):
    """Keeps no page whose bit is 1 beyond its request, and treats the others as MARKER does.

    Its bits say of each request whether the optimum evicts the page before it is requested again.
    It faults at most OPT + 2 H_k η₀ + η₁ times in expectation.

    **Reference:** Antoniadis et al. (2023), arXiv:2210.02775, Mark0.

    **Differences from the paper:** a page that was evicted in the same phase takes a free place if
    there is one, rather than that of a random page without a mark.
    """

    advice: ClassVar[Advice] = "discard"

    def init(self, cache_size: int) -> Marked:
        return _empty(cache_size)

    def serve(self, state: Marked, request: Request, *, key: PRNGKeyArray) -> Marked:
        served = _serve_marked(state, request, jnp.zeros_like(state.bits), key=key)
        discarded = (served.pages == request.page) & (request.advice > 0.5)
        return Marked(jnp.where(discarded, -1, served.pages), served.marked, served.bits)


class Chained(eqx.Module):
    """What PredictiveMarker keeps of a phase.

    **Arguments:** `arrival`: when each page is said to be requested again; `begun_with`: the pages
    when the phase began; `chain`: of evictions, the one in which each of these left, -1 if it did
    not; `length`: of each chain; `chains`: how many there are.
    """

    pages: Int[Array, " place"]
    marked: Bool[Array, " place"]
    arrival: Float[Array, " place"]
    begun_with: Int[Array, " place"]
    chain: Int[Array, " place"]
    length: Int[Array, " place"]
    chains: Int[Array, ""]


class PredictiveMarker(AbstractEviction):
    """MARKER which evicts what is said to be requested again latest, as long as that helps.

    A page that was not there when the phase began starts a chain of evictions; a page that comes
    back prolongs the chain in which it left. Beyond H_k evictions a chain goes on at random.

    **Reference:** Lykouris and Vassilvitskii (2018), Competitive caching with machine learned
    advice.
    """

    advice: ClassVar[Advice] = "next"

    def init(self, cache_size: int) -> Chained:
        empty, none = _empty(cache_size), jnp.full(cache_size, -1, jnp.int32)
        return Chained(
            empty.pages,
            empty.marked,
            empty.bits,
            none,
            none,
            jnp.zeros_like(none),
            jnp.zeros((), jnp.int32),
        )

    def serve(self, state: Chained, request: Request, *, key: PRNGKeyArray) -> Chained:
        evicts = must_evict(state.pages, request.page)
        state = _with_new_phase(state, evicts & jnp.all(state.marked))
        size = state.pages.shape[0]
        before = state.begun_with == request.page
        left_in = jnp.where(jnp.any(before), state.chain[jnp.argmax(before)], -1)
        chain = jnp.where(left_in >= 0, left_in, state.chains)
        length = state.length[chain] + 1
        trusted = length <= jnp.sum(1.0 / jnp.arange(1, size + 1))
        badness = jnp.where(trusted, state.arrival, jax.random.uniform(key, (size,)))
        place = place_for(state.pages, request.page, jnp.where(state.marked, -jnp.inf, badness))
        return Chained(
            state.pages.at[place].set(request.page),
            state.marked.at[place].set(True),
            state.arrival.at[place].set(request.advice),
            state.begun_with,
            jnp.where(evicts, state.chain.at[place].set(chain), state.chain),
            jnp.where(evicts, state.length.at[chain].set(length), state.length),
            state.chains + (evicts & (left_in < 0)),
        )


def _empty(cache_size: int) -> Marked:
    return Marked(
        jnp.full(cache_size, -1, jnp.int32), jnp.zeros(cache_size, bool), jnp.zeros(cache_size)
    )


def _serve_marked(
    state: Marked, request: Request, badness: Float[Array, " place"], *, key: PRNGKeyArray
) -> Marked:
    """Evicts, among the pages without a mark, a random one of the worst."""
    evicts = must_evict(state.pages, request.page)
    marked = state.marked & ~(evicts & jnp.all(state.marked))
    chance = badness + jax.random.uniform(key, badness.shape)
    place = place_for(state.pages, request.page, jnp.where(marked, -1.0, chance))
    return Marked(
        state.pages.at[place].set(request.page),
        marked.at[place].set(True),
        state.bits.at[place].set(request.advice),
    )


def _with_new_phase(state: Chained, begins: Bool[Array, ""]) -> Chained:
    none = jnp.full_like(state.chain, -1)
    return Chained(
        state.pages,
        state.marked & ~begins,
        state.arrival,
        jnp.where(begins, state.pages, state.begun_with),
        jnp.where(begins, none, state.chain),
        jnp.where(begins, 0, state.length),
        jnp.where(begins, 0, state.chains),
    )
