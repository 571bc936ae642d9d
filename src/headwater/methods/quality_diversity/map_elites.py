"""MAP-Elites: the best solution for each cell of measures, varied again and again."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative
from headwater.core.method import AbstractArchiving, AbstractMethod, Info
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.novelty import archive_metrics, empty_grid


class MAPElitesState(eqx.Module):
    """The grid of the best solutions."""

    found: Archive


class MAPElites(
    AbstractMethod[MeasuredSpace, MeasuredQueries, MAPElitesState],
    AbstractArchiving[MAPElitesState],
):
    r"""Keeps the best solution of each cell of measures; children replace what they beat.

    A child of $x_i$ is $x_i + \sigma\varepsilon + \lambda (x_j - x_i)\eta$, with $x_i$ and $x_j$
    drawn uniformly from the archive, $\varepsilon$ normal for each component and $\eta$ normal.

    **Arguments:**

    - `cells`: into how many each measure is divided.
    - `mutation_scale`: $\sigma$, in the unit cube.
    - `line_scale`: $\lambda$, of the way towards another solution.

    **Reference:** Mouret and Clune (2015), Illuminating Search Spaces by Mapping Elites,
    arXiv:1504.04909.

    **Differences from the paper:** a whole batch is varied before the first of it is inserted;
    `line_scale` is of Vassiliades and Mouret (2018); the first batch is uniform.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "mouret2015illuminating", summary="the best solution for each cell of measures"
    )

    cells: int = integer(50)
    mutation_scale: float = non_negative(0.01)
    line_scale: float = non_negative(0.2)

    def init(self, problem: MeasuredSpace, *, key: PRNGKeyArray) -> MAPElitesState:
        return MAPElitesState(empty_grid(problem, self.cells))

    def update(self, state: MAPElitesState, data: MeasuredQueries, *, key: PRNGKeyArray):
        value = jnp.where(data.known, data.value, jnp.nan)
        found = state.found.insert(data.point, value, data.measures)
        return MAPElitesState(found), archive_metrics(found)

    def offspring(
        self, state: MAPElitesState, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        parent_key, step_key, line_key, first_key = jax.random.split(key, 4)
        found = state.found
        # Places that are taken come first, so that a number below their number names one.
        order = jnp.argsort(~found.filled, stable=True)
        number = jnp.sum(found.filled, dtype=jnp.int32)
        drawn = jax.random.randint(parent_key, (2, count), 0, jnp.maximum(number, 1), jnp.int32)
        parent, other = found.solution[order[drawn]]
        step = self.mutation_scale * jax.random.normal(step_key, parent.shape)
        line = self.line_scale * jax.random.normal(line_key, (count, 1)) * (other - parent)
        anywhere = jax.random.uniform(first_key, parent.shape)
        return jnp.where(number > 0, jnp.clip(parent + step + line, 0.0, 1.0), anywhere)

    def archive(self, state: MAPElitesState) -> Archive:
        return state.found
