"""What a kind of data is, and how one is added."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

ROWS = 16
TERMINAL = slice(0, 4)
"""Rows of a batch that are terminal."""
TRUNCATED = slice(4, 7)
"""Rows of a batch that are truncated; the rest is neither."""


class Kind(NamedTuple):
    """One kind of data.

    `problem` is what `init` gets; `batch(key)` makes data for one update; `flat` says that its rows
    come in no order, so that checks may edit and permute them one by one. A `last_resort` is
    for methods that take no kind before it; a kind that is about a `field` for those that have it.
    `hard` names what makes a degenerate but legal batch of one.
    """

    name: str
    problem: Any
    batch: Callable[[Any], Any]
    flat: bool
    hard: dict[str, Callable[[Any], Any]]
    last_resort: bool = False
    field: str | None = None


Maker = Callable[[], Sequence[Kind]]

makers: dict[tuple[type, type], Maker] = {}
"""What makes the kinds of such data of such problems, of the modules that are imported."""


def kinds_of(problem: type, data: type) -> Callable[[Maker], Maker]:
    """Marks the function that makes the kinds of `data` of a `problem`, which is called once."""

    def registered(make: Maker) -> Maker:
        makers[problem, data] = functools.cache(make)
        return make

    return registered


def repeated_rows(data: Any) -> Any:
    """The first row of `data` in place of each."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), data)
