"""Sequences of requests: from files and arrays, and what perfect advice says of them."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from headwater.analysis.paging.policy import Advice, Belady, Request
from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.datasets.arrays import read_table


def read_requests(
    path: str | Path, page: str = "page", advice: str | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The pages of a table (`.csv`, `.parquet`), in the order of its rows, and a column of advice.

    **Arguments:** `page`, `advice`: names of columns. Pages may be texts, which are numbered.

    Raises `DataError`, naming the file, the column and the row, for what is not there or no page.
    """
    try:
        table = read_table(Path(path))
        for name in (page, advice):
            if name is not None and name not in table:
                raise DataError(nearest(name, table, "column"))
        pages, said = table[page], None if advice is None else table[advice]
        if pages.dtype.kind not in "biuf":
            pages = np.unique(pages.astype(str), return_inverse=True)[1]
        if said is not None and said.dtype.kind not in "biuf":
            raise DataError(f"column '{advice}' holds texts, but advice is a number")
        return numbered(pages)[0], None if said is None else np.asarray(said, np.float32)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def numbered(pages: Any) -> tuple[np.ndarray, int]:
    """The pages as numbers from 0 on, and how many there are.

    Raises `DataError` for a request that is no page.
    """
    pages = np.asarray(pages)
    if pages.ndim < 1 or not pages.size or pages.dtype.kind not in "iuf":
        raise DataError(
            f"pages have shape {pages.shape} and type {pages.dtype}: whole numbers are needed, one "
            "for each request"
        )
    for wrong, reason in (
        (~np.isfinite(pages) | (pages != np.round(pages)), "is not a whole number"),
        (pages < 0, "is negative: pages are numbered from 0 on"),
    ):
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            where = f"request {at[-1] + 1}" + (f" of sequence {at[0] + 1}" if at[:-1] else "")
            raise DataError(f"{where}: page {pages[at]:g} {reason}")
    known, numbers = np.unique(pages, return_inverse=True)
    return numbers.reshape(pages.shape).astype(np.int32), len(known)


def check_cache(cache_size: int, universe: int) -> None:
    """Raises `SpecificationError` for a cache of no page, or of more than are ever requested."""
    if cache_size < 1:
        raise SpecificationError(f"cache_size = {cache_size}: it must be at least 1")
    if cache_size > universe:
        raise SpecificationError(
            f"cache_size = {cache_size}: only {universe} different pages are ever requested, so "
            "that nothing is evicted; take a smaller cache"
        )


def perfect_advice(kind: Advice, pages: Any, cache_size: int) -> np.ndarray:
    """What a predictor without errors says with each request `[*sequence, request]`.

    **Arguments:** `kind`: `discard`, `phase` or `next`; `pages`: `[*sequence, request]`.

    Raises `SpecificationError` or `DataError` as `page_faults` does.
    """
    pages, universe = numbered(pages)
    check_cache(cache_size, universe)
    rows = jnp.asarray(pages.reshape(-1, pages.shape[-1]))
    if kind == "discard":
        found: Any = _discard_bits(rows, cache_size)
    elif kind == "phase":
        found = np.stack([_phase_bits(row, cache_size) for row in np.asarray(rows)])
    elif kind == "next":
        found = jax.vmap(next_requests)(rows)
    else:
        raise SpecificationError(f"there is no advice of the kind '{kind}' to be given")
    return np.asarray(found, np.float32).reshape(pages.shape)


def next_requests(pages: Int[Array, " request"]) -> Int[Array, " request"]:
    """When each page is requested again; the number of requests if it is not."""
    count = pages.shape[0]
    order = jnp.argsort(pages, stable=True)
    again = pages[order[1:]] == pages[order[:-1]]
    following = jnp.append(jnp.where(again, order[1:], count), count)
    return jnp.zeros(count, jnp.int32).at[order].set(following.astype(jnp.int32))


@eqx.filter_jit
def _discard_bits(pages: Int[Array, "sequence request"], cache_size: int) -> Bool[Array, "..."]:
    """Whether Belady's optimum evicts the page before it is requested again."""
    policy, key = Belady(), jax.random.key(0)

    def one(pages):
        count = pages.shape[0]

        def step(carry, given):
            state, last = carry
            page, time, following = given
            new = policy.serve(state, Request(page, time, jnp.zeros(()), following), key=key)
            evicted = jnp.any(new.pages != state.pages) & jnp.all(state.pages >= 0)
            changed = jnp.argmax(new.pages != state.pages)
            bit_of = jnp.where(evicted, last[changed], count)
            return (new, jnp.where(new.pages == page, time, last)), bit_of

        times = jnp.arange(count, dtype=jnp.int32)
        start = (policy.init(cache_size), jnp.zeros(cache_size, jnp.int32))
        _, bits_of = jax.lax.scan(step, start, (pages, times, next_requests(pages)))
        return jnp.zeros(count, bool).at[bits_of].set(True, mode="drop")

    return jax.vmap(one)(pages)


def _phase_bits(pages: np.ndarray, cache_size: int) -> np.ndarray:
    """Whether the page is not requested in the next phase; phases have `cache_size` pages."""
    starts, seen = [0], set()
    for i, page in enumerate(pages.tolist()):
        if page not in seen and len(seen) == cache_size:
            starts.append(i)
            seen = set()
        seen.add(page)
    ends = [*starts[1:], len(pages), len(pages)]
    bits = np.ones(len(pages), bool)
    for start, end, beyond in zip(starts, ends, ends[1:]):
        bits[start:end] = ~np.isin(pages[start:end], pages[end:beyond])
    return bits
