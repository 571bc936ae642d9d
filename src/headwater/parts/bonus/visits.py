"""Exact counts of the cells of observations, over all experience and within an episode."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.records import Transition
from headwater.core.spaces import Spaces

_MOST_CELLS = 2_000_000
_WITHOUT_COUNTS = (
    "take what learns what is new and counts nothing: E3B with features = learned and without "
    "times_counts, or NovelD with first_visits = false"
)


class Visits(eqx.Module):
    """How often each cell was visited.

    An episode's own counts belong to the episode that last wrote them; so nothing has to be cleared
    when one ends.

    **Arguments:** `lowest`: of each column, `sizes`: cells along it; `in_all`: visits of each cell,
    `within`: those in the episode number `written`; `episode`: the number of the present one.
    """

    lowest: Float[Array, " column"]
    sizes: Int[Array, " column"]
    in_all: Int[Array, " cell"]
    within: Int[Array, " cell"]
    written: Int[Array, " cell"]
    episode: Int[Array, ""]


class Visit(eqx.Module):
    """One visit, counted: how often its cell was visited in all, and in this episode."""

    in_all: Float[Array, ""]
    within: Float[Array, ""]

    @property
    def first(self) -> Bool[Array, ""]:
        """Whether it is the first one of this episode."""
        return self.within == 1


def begin_visits(
    name: str, problem: Spaces, columns: tuple[int, ...], cells_per_unit: int
) -> Visits:
    """Counts before any visit.

    **Arguments:** `name`: of the method, for messages; `columns`: of observations, whose cells are
    counted; all if there are none; `cells_per_unit`: cells that a unit of each is divided into.

    Raises `SpecificationError` where bounds are infinite, or there would be too many cells.
    """
    columns = columns or tuple(range(problem.observation_size))
    low = np.asarray([problem.observation.low[c] for c in columns])
    high = np.asarray([problem.observation.high[c] for c in columns])
    endless = np.flatnonzero(~np.isfinite(low) | ~np.isfinite(high))
    if len(endless):
        raise SpecificationError(
            f"{name} needs bounds of the observations whose cells it counts, but column "
            f"{columns[endless[0]]} has none: name columns that have some as novelty_columns, or "
            f"{_WITHOUT_COUNTS}"
        )
    sizes = [math.floor((h - lo) * cells_per_unit + 0.5) + 1 for lo, h in zip(low, high)]
    cells = math.prod(sizes)
    if cells > _MOST_CELLS:
        raise SpecificationError(
            f"{name} would count {cells:,} cells of {len(columns)} columns, and at most "
            f"{_MOST_CELLS:,} can be: name fewer as novelty_columns, or {_WITHOUT_COUNTS}"
        )
    nothing = jnp.zeros(cells, jnp.int32)
    return Visits(
        jnp.asarray(low, jnp.float32),
        jnp.asarray(sizes, jnp.int32),
        nothing,
        nothing,
        nothing - 1,
        jnp.zeros((), jnp.int32),
    )


def visit(
    visits: Visits,
    seen: Float[Array, " column"],
    cells_per_unit: int,
    counts: Bool[Array, ""],
) -> tuple[Visits, Visit]:
    """The counts after one visit, and what they say of it.

    **Arguments:** `seen`: the columns that are counted; `counts`: whether this is a visit at all;
    if not, nothing changes.
    """
    place = jnp.floor((seen - visits.lowest) * cells_per_unit + 0.5)
    place = jnp.nan_to_num(place).clip(0, visits.sizes - 1).astype(jnp.int32)
    strides = jnp.cumprod(visits.sizes) // visits.sizes
    cell = jnp.sum(place * strides)
    one = counts.astype(jnp.int32)
    before = jnp.where(visits.written[cell] == visits.episode, visits.within[cell], 0)
    in_all, within = visits.in_all[cell] + one, before + one
    after = Visits(
        visits.lowest,
        visits.sizes,
        visits.in_all.at[cell].set(in_all),
        visits.within.at[cell].set(within),
        visits.written.at[cell].set(visits.episode),
        visits.episode,
    )
    return after, Visit(in_all.astype(jnp.float32), within.astype(jnp.float32))


def visit_step(
    visits: Visits,
    left: Float[Array, " column"],
    came: Float[Array, " column"],
    cells_per_unit: int,
    data: Transition,
    fresh: Bool[Array, ""],
) -> tuple[Visits, Visit]:
    """The counts after a step, and what they say of where it led.

    An episode's first observation is visited too; what stands behind a terminal step is not.

    **Arguments:** `left`, `came`: the columns that are counted, before and after; `data`: the step;
    `fresh`: it is the first of its episode.
    """
    visits, _ = visit(visits, left, cells_per_unit, fresh)
    visits, found = visit(visits, came, cells_per_unit, ~data.terminal)
    over = data.terminal | data.truncated
    episode = visits.episode + over.astype(jnp.int32)
    return eqx.tree_at(lambda v: v.episode, visits, episode), found
