"""Archives of solutions: the best of each cell of measures, or any, one after the other."""

import dataclasses
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from headwater.core.errors import SpecificationError

_MOST_CELLS = 4_000_000


class Archive(eqx.Module):
    """Solutions, their objectives and their measures, in a table with a place for each.

    A *grid* has a place for each cell of measures, and keeps the best solution of it. An
    *unstructured* archive has no cells: it keeps what is appended, the oldest until there is no
    room. `Archive.grid` and `Archive.unstructured` make empty ones.

    **Arguments:** `solution`, `objective`, `measures`: a row for each place, zeros where nothing
    was found; `filled`: which places are taken; `count`: solutions that were ever kept; `low`,
    `high`: bounds of the measures; `cells`: of each measure (empty: no grid).
    """

    solution: Float[Array, "place component"]
    objective: Float[Array, " place"]
    measures: Float[Array, "place measure"]
    filled: Bool[Array, " place"]
    count: Int[Array, ""]
    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)
    cells: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def grid(
        cls, size: int, low: tuple[float, ...], high: tuple[float, ...], cells: tuple[int, ...]
    ) -> "Archive":
        """An empty grid.

        **Arguments:** `size`: components of a solution; `low`, `high`: bounds of the measures;
        `cells`: into how many each measure is divided.

        Raises `SpecificationError` if there are more than four million cells.
        """
        places = math.prod(cells)
        if places > _MOST_CELLS:
            raise SpecificationError(
                f"{' × '.join(map(str, cells))} are {places:,} cells, and a grid takes at most "
                f"{_MOST_CELLS:,}: divide the measures into fewer"
            )
        return cls._empty(places, size, len(low), low, high, cells)

    @classmethod
    def unstructured(cls, size: int, measures: int, places: int) -> "Archive":
        """An empty archive without cells, with room for so many solutions."""
        return cls._empty(places, size, measures, (), (), ())

    @classmethod
    def _empty(cls, places, size, measures, low, high, cells) -> "Archive":
        return cls(
            jnp.zeros((places, size)),
            jnp.zeros(places),
            jnp.zeros((places, measures)),
            jnp.zeros(places, bool),
            jnp.zeros((), jnp.int32),
            low,
            high,
            cells,
        )

    @property
    def places(self) -> int:
        """Number of places."""
        return self.objective.shape[0]

    def place_of(self, measures: Float[Array, "row measure"]) -> Int[Array, " row"]:
        """The cell of each row; measures beyond their bounds count to the cell at the edge."""
        low, high = (np.asarray(ends, np.float32) for ends in (self.low, self.high))
        cells = np.asarray(self.cells, np.int32)
        share = (measures - low[None, :]) / (high - low)[None, :]
        index = jnp.floor(share * cells[None, :].astype(np.float32)).astype(jnp.int32)
        index = jnp.clip(index, 0, cells[None, :] - 1)
        steps = np.append(np.cumprod(cells[:0:-1], dtype=np.int32)[::-1], 1).astype(np.int32)
        return jnp.sum(index * steps[None, :], axis=1, dtype=jnp.int32)

    def insert(
        self,
        solution: Float[Array, "row component"],
        objective: Float[Array, " row"],
        measures: Float[Array, "row measure"],
    ) -> "Archive":
        """The grid after a batch of solutions: the best of each cell stays, the first of equals.

        Rows whose objective or measures are not finite are left out.
        """
        rows = objective.shape[0]
        good = jnp.isfinite(objective) & jnp.all(jnp.isfinite(measures), axis=1)
        place = self.place_of(jnp.where(good[:, None], measures, 0.0))
        score = jnp.where(good, objective, -jnp.inf)
        best = jnp.where(self.filled, self.objective, -jnp.inf).at[place].max(score)
        wins = good & (score == best[place])
        numbers = jnp.arange(rows, dtype=jnp.int32)
        # The first row of those that are best; `rows` where there is none.
        row = jnp.full(self.places, rows, jnp.int32)
        row = row.at[place].min(jnp.where(wins, numbers, rows))
        better = (row < rows) & (~self.filled | (best > self.objective))
        row = jnp.minimum(row, rows - 1)
        return self._replaced(
            jnp.where(better[:, None], solution[row], self.solution),
            jnp.where(better, objective[row], self.objective),
            jnp.where(better[:, None], measures[row], self.measures),
            self.filled | better,
            self.count + jnp.sum(better, dtype=jnp.int32),
        )

    def append(
        self,
        solution: Float[Array, "row component"],
        objective: Float[Array, " row"],
        measures: Float[Array, "row measure"],
        chosen: Bool[Array, " row"],
    ) -> "Archive":
        """The unstructured archive with the chosen rows, which take the places of the oldest."""
        order = jnp.cumsum(chosen.astype(jnp.int32))
        kept = chosen & (order > order[-1] - self.places)
        place = jnp.where(kept, (self.count + order - 1) % self.places, self.places)
        return self._replaced(
            self.solution.at[place].set(solution, mode="drop"),
            self.objective.at[place].set(objective, mode="drop"),
            self.measures.at[place].set(measures, mode="drop"),
            self.filled.at[place].set(True, mode="drop"),
            self.count + order[-1],
        )

    def _replaced(self, *arrays) -> "Archive":
        names = ("solution", "objective", "measures", "filled", "count")
        return dataclasses.replace(self, **dict(zip(names, arrays)))

    def coverage(self) -> Float[Array, ""]:
        """The share of places that are taken."""
        return jnp.mean(self.filled.astype(jnp.float32))

    def qd_score(self, lowest: float | Float[Array, ""] = 0.0) -> Float[Array, ""]:
        """The sum of the objectives of all places that are taken, each counted from `lowest`."""
        return jnp.sum(jnp.where(self.filled, self.objective - lowest, 0.0))

    def max(self) -> Float[Array, ""]:
        """The highest objective; 0 before the first solution."""
        found = jnp.max(jnp.where(self.filled, self.objective, -jnp.inf))
        return jnp.where(jnp.any(self.filled), found, 0.0)
