"""How often a policy of eviction misses the page that is requested."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from headwater.analysis.paging.policy import AbstractEviction, Request
from headwater.analysis.paging.requests import check_cache, next_requests, numbered
from headwater.analysis.registry import analysis
from headwater.core.errors import DataError, SpecificationError

_MEANING = {
    "discard": "a bit for each request, 1 where the page can be evicted before it is needed again",
    "phase": "a bit for each request, 1 where the next phase does not need the page",
    "next": "when each page is requested again",
}


@analysis(paper="antoniadis2023paging")
def page_faults(
    policy: AbstractEviction,
    pages: Any,
    *,
    cache_size: int,
    advice: Any = None,
    key: PRNGKeyArray | None = None,
) -> np.ndarray:
    """Which requests find their page absent, if a cache that is empty at first serves them.

    **Arguments:** `policy`: such as `LRU()`; `pages`: whole numbers `[*sequence, request]`, of one
    sequence or several, which are served side by side; `cache_size`: pages that fit; `advice`: what
    a predictor said with each request, of the same shape, as the policy reads it (its `advice`);
    `key`: for policies that draw.

    **Returns:** booleans `[*sequence, request]`; their sum is the number of faults.

    Raises `DataError` for requests that are no pages or advice that does not fit them,
    `SpecificationError` for a cache larger than all pages, or advice missing or not looked at.
    """
    pages, universe = numbered(pages)
    check_cache(cache_size, universe)
    said = _checked_advice(policy, pages, advice)
    rows = pages.reshape(-1, pages.shape[-1])
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(rows))
    faults = _serve(policy, jnp.asarray(rows), jnp.asarray(said), cache_size, keys)
    return np.asarray(faults).reshape(pages.shape)


def _checked_advice(policy: AbstractEviction, pages: np.ndarray, advice: Any) -> np.ndarray:
    """`[sequence, request]`, zeros where the policy reads none."""
    name, meaning = type(policy).__name__, _MEANING.get(policy.advice)
    rows = (-1, pages.shape[-1])
    if meaning is None:
        if advice is not None:
            raise SpecificationError(f"{name} reads no advice: leave it out")
        return np.zeros(pages.shape, np.float32).reshape(rows)
    if advice is None:
        raise SpecificationError(f"{name} reads advice, {meaning}: give it")
    said = np.asarray(advice)
    if said.shape != pages.shape or said.dtype.kind not in "biuf":
        raise DataError(
            f"advice has shape {said.shape} and type {said.dtype}, but requests have shape "
            f"{pages.shape}: give one number for each"
        )
    bits = policy.advice != "next"
    wrong = ~np.isfinite(said) | (bits & (said != 0) & (said != 1))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        needed = "neither 0 nor 1" if bits else "not finite"
        raise DataError(f"request {at[-1] + 1}: advice {said[at]:g} is {needed}")
    return said.astype(np.float32).reshape(rows)


@eqx.filter_jit
def _serve(
    policy: AbstractEviction,
    pages: Int[Array, "sequence request"],
    advice: Float[Array, "sequence request"],
    cache_size: int,
    keys: Key[Array, " sequence"],
) -> Bool[Array, "sequence request"]:
    def one(pages, advice, key):
        times = jnp.arange(pages.shape[0], dtype=jnp.int32)

        def step(state, request):
            fault = ~jnp.any(state.pages == request.page)
            drawn = jax.random.fold_in(key, request.time)
            return policy.serve(state, request, key=drawn), fault

        requests = Request(pages, times, advice, next_requests(pages))
        return jax.lax.scan(step, policy.init(cache_size), requests)[1]

    return jax.vmap(one)(pages, advice, keys)
