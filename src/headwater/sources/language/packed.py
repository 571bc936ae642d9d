"""Stored texts of very different lengths, read without most of the padding."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.method import Agent
from headwater.core.records import (
    CompletionComparisons,
    Completions,
    LabelledCompletions,
    Packing,
)
from headwater.core.source import AbstractHostSource, Keys
from headwater.ops.language.packing import lengths_to_read
from headwater.sources.language.completions import drawn_rows
from headwater.sources.language.passes import (
    Pass,
    first_pass,
    next_rows,
    refuse_weighted_passes,
)

PackedTexts = Completions | CompletionComparisons | LabelledCompletions
"""What can be read side by side."""

_LEAST_WIDTH = 16
_MOST_SHAPES = 4
"""Each is a program that has to be compiled."""
_TRIED = 64
"""Batches that shapes are chosen by."""
_LEAST_GAIN = 0.05
"""Share of the work that a further shape has to save."""


class Shape(NamedTuple):
    """Rows that texts are read in, and how wide these are."""

    rows: int
    width: int


class PackedReplay(AbstractHostSource[tuple[()] | Pass, PackedTexts]):
    """Rows of stored texts or comparisons, drawn as `CompletionReplay` does, read side by side.

    The host twin of `CompletionReplay`: the same keys draw the same rows. Batches come in a few
    shapes, so that one long text costs much only when it is drawn; in each of them texts share rows
    (`Packing`), and none sees another, so that losses are what they are with padding.

    **Arguments:** `data`: with a leading axis of rows; `rows`: in a batch; `shapes`: what batches
    are read in, see `shapes_for`, the last of which holds every batch; `weights`: rows are drawn in
    proportion to these, if not uniformly; `passes`: every row comes once before any comes again.
    Raises `SpecificationError` for weights with passes.
    """

    data: PackedTexts
    rows: int = eqx.field(static=True)
    shapes: tuple[Shape, ...] = eqx.field(static=True)
    weights: Float[Array, " row"] | None = None
    passes: bool = eqx.field(static=True, default=False)

    def __init__(
        self,
        data: PackedTexts,
        rows: int,
        shapes: tuple[Shape, ...],
        weights: Float[Array, " row"] | None = None,
        passes: bool = False,
    ):
        refuse_weighted_passes(passes, weights)
        self.data = jax.tree.map(np.asarray, data)
        self.rows, self.shapes, self.weights, self.passes = rows, shapes, weights, passes

    def init(self, *, keys: Keys) -> tuple[()] | Pass:
        return _first_passes(self._count, keys) if self.passes else ()

    def draw(
        self, state: tuple[()] | Pass, agent: Agent, *, keys: Keys
    ) -> tuple[tuple[()] | Pass, PackedTexts]:
        if isinstance(state, Pass):
            state, taken = _next_rows(state, self.rows)
        else:
            taken = _drawn_rows(self._count, self.rows, keys, self.weights)
        index = np.asarray(taken)
        batches = [jax.tree.map(lambda x, i=i: x[i], self.data) for i in index]
        lengths = [_lengths(batch) for batch in batches]
        shape = next(s for s in self.shapes if all(_holds(s, each) for each in lengths))
        ready = [_packed(batch, each, shape) for batch, each in zip(batches, lengths)]
        return state, jax.tree.map(lambda *x: np.stack(x), *ready)

    @property
    def _count(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    def save(self, state: tuple[()] | Pass) -> dict[str, np.ndarray]:
        if not isinstance(state, Pass):
            return {}
        names = ("key", "number", "order", "place")
        return {name: np.asarray(getattr(state, name)) for name in names}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> tuple[()] | Pass:
        if not self.passes:
            return ()
        return Pass(**{name: jnp.asarray(array) for name, array in saved.items()})

    @property
    def uses_agent(self) -> bool:
        """No: rows are drawn by the keys alone."""
        return False


def shapes_for(
    data: PackedTexts,
    rows: int,
    model_width: int,
    weights: Float[Array, " row"] | None = None,
) -> tuple[tuple[Shape, ...], float]:
    """The shapes to read batches in, from the cheapest on.

    They are chosen for batches like those that will be drawn. The last holds every batch.

    **Arguments:** `model_width`: of the hidden states, from which follows what attention costs;
    the rest as of `PackedReplay`.

    **Returns:** the shapes, and the work of a batch as a share of that with all its padding.
    """
    data = jax.tree.map(np.asarray, data)
    count, positions = _texts(data)[0].tokens.shape
    share = None
    if weights is not None:
        # In double precision throughout: what is drawn from has to add up to one.
        share = np.asarray(weights, np.float64)
        share = share / share.sum()
    random = np.random.default_rng(0)
    widths = [positions]
    while widths[-1] > _LEAST_WIDTH:
        widths.append(widths[-1] // 2)
    needed = np.empty((_TRIED, len(widths)), int)
    for batch, index in enumerate(random.choice(count, (_TRIED, rows), p=share)):
        lengths = _lengths(jax.tree.map(lambda x, i=index: x[i], data))
        needed[batch] = [_rows_needed(lengths, width) for width in widths]

    def costs(shape: Shape) -> np.ndarray:
        """Of each batch in this shape: infinite where it does not hold it."""
        return np.where(needed[:, widths.index(shape.width)] <= shape.rows, _cost(shape), np.inf)

    def _cost(shape: Shape) -> float:
        # Attention over four times the width of the model costs about what its products do.
        return shape.rows * shape.width * (1.0 + shape.width / (4.0 * model_width))

    whole = Shape(rows, positions)
    chosen, best = [whole], costs(whole)
    possible = [
        Shape(int(n), width)
        for column, width in zip(needed.T, widths)
        for n in np.unique(column[column <= rows])
    ]
    while possible and len(chosen) < _MOST_SHAPES:
        candidate = min(possible, key=lambda shape: np.minimum(best, costs(shape)).mean())
        found = np.minimum(best, costs(candidate))
        if found.mean() > (1.0 - _LEAST_GAIN) * best.mean():
            break
        chosen.append(candidate)
        best = found
    return tuple(sorted(chosen, key=_cost)), float(best.mean() / _cost(whole))


def _texts(data: PackedTexts) -> list[Completions]:
    if isinstance(data, Completions):
        return [data]
    if isinstance(data, CompletionComparisons):
        return [data.chosen, data.rejected]
    return [data.completions]


def _lengths(batch: PackedTexts) -> list[np.ndarray]:
    """Tokens to read of each text, for everything that the batch is read as."""
    found = [lengths_to_read(np.asarray(data.response)) for data in _texts(batch)]
    if isinstance(batch, LabelledCompletions):
        # Every prompt is read with the response before it as well.
        (whole,), response = found, batch.completions.response
        start = np.argmax(response, axis=-1)
        mixed = start + np.roll(whole - start, 1)
        found.append(np.minimum(mixed, response.shape[-1]))
    return found


def _holds(shape: Shape, lengths: list[np.ndarray]) -> bool:
    return _rows_needed(lengths, shape.width) <= shape.rows


def _rows_needed(lengths: list[np.ndarray], width: int) -> int:
    """For all that is read of a batch; more than there are texts if one of them is too long."""
    if any(each.max() > width for each in lengths):
        return lengths[0].size + 1
    return max(int(_placed(each, width)[0].max()) + 1 for each in lengths)


def _placed(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and first place of each text: the longest first, each in the first row with room."""
    row, start = np.zeros(lengths.size, np.int32), np.zeros(lengths.size, np.int32)
    taken = np.zeros(lengths.size, np.int32)
    for text in np.argsort(-lengths, kind="stable"):
        row[text] = np.argmax(taken + lengths[text] <= width)
        start[text] = taken[row[text]]
        taken[row[text]] += lengths[text]
    return row, start


def _packed(batch: PackedTexts, lengths: list[np.ndarray], shape: Shape) -> PackedTexts:
    """The batch as wide as the shape, with the places of its texts."""
    narrow = jax.tree.map(lambda x: x[:, : shape.width] if x.ndim > 1 else x, batch)
    if shape.rows == lengths[0].size:
        # Every text has a row of its own.
        return narrow
    packings = [_packing(each, shape) for each in lengths]
    if isinstance(narrow, Completions):
        return eqx.tree_at(lambda x: x.packing, narrow, packings[0], is_leaf=_missing)
    if isinstance(narrow, CompletionComparisons):
        where = lambda x: (x.chosen.packing, x.rejected.packing)
    else:
        where = lambda x: (x.completions.packing, x.mismatched)
    return eqx.tree_at(where, narrow, tuple(packings), is_leaf=_missing)


def _packing(lengths: np.ndarray, shape: Shape) -> Packing:
    row, start = _placed(lengths, shape.width)
    arrays: dict[str, Any] = {"row": row, "start": start, "length": lengths.astype(np.int32)}
    return Packing(**arrays, rows=shape.rows, width=shape.width)


def _missing(part: object) -> bool:
    return part is None


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drawn_rows(count, rows, keys, weights):
    return jax.vmap(lambda key: drawn_rows(count, rows, key, weights))(keys)


@functools.partial(jax.jit, static_argnums=0)
def _first_passes(count, keys):
    return jax.vmap(lambda key: first_pass(count, key))(keys)


@functools.partial(jax.jit, static_argnums=1)
def _next_rows(state, rows):
    # One after the other: mapped side by side, the next order would be made at every draw.
    return jax.lax.map(lambda each: next_rows(each, rows), state)
