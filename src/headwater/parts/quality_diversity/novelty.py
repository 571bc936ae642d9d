"""Novelty: how far what a solution did is from what others did, and the search for it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.parts.quality_diversity.archive import Archive


class AbstractNoveltySettings(eqx.Module):
    """Settings of the search for novelty that methods share.

    **Arguments:** `population_size`: solutions that are varied; `mutation_scale`: standard
    deviation of what is added to each component, in the unit cube; `num_neighbours`: nearest ones
    that novelty is the mean distance of; `num_added`: evaluations of each update that enter the
    archive of what counts as known; `cells`: into how many each measure is divided, in the archive
    that is kept for users.
    """

    population_size: eqx.AbstractVar[int]
    mutation_scale: eqx.AbstractVar[float]
    num_neighbours: eqx.AbstractVar[int]
    num_added: eqx.AbstractVar[int]
    cells: eqx.AbstractVar[int]


class Searching(eqx.Module):
    """The search for novelty so far.

    **Arguments:** `population`: rows, of which `alive` are solutions; `known`: an unstructured
    archive of what was done before, which holds frames or measures; `found`: the grid of the best
    solutions, for users.
    """

    population: MeasuredQueries
    alive: Bool[Array, " member"]
    known: Archive
    found: Archive


class Joined(NamedTuple):
    """Population and batch together, the rows of the batch last; `usable`: which are solutions."""

    rows: MeasuredQueries
    usable: Bool[Array, " row"]


def begin(
    settings: AbstractNoveltySettings, problem: MeasuredSpace, *, frames: bool = False
) -> Searching:
    """Before any evaluation. `frames`: known are frames, not measures."""
    size, members = problem.size, settings.population_size
    width = problem.frame_size if frames else problem.measures
    # Updates have as many evaluations as there are members, at least; a longer search forgets.
    places = max(1, settings.num_added * max(1, problem.capacity // members))
    return Searching(
        MeasuredQueries(
            jnp.zeros((members, size)),
            jnp.zeros(members),
            jnp.zeros((members, problem.measures)),
            jnp.zeros((members, problem.frame_size)),
        ),
        jnp.zeros(members, bool),
        Archive.unstructured(size, width, places),
        empty_grid(problem, settings.cells),
    )


def empty_grid(problem: MeasuredSpace, cells: int) -> Archive:
    """A grid of so many cells for each measure."""
    each = (cells,) * problem.measures
    return Archive.grid(problem.size, problem.measure_low, problem.measure_high, each)


def varied(
    settings: AbstractNoveltySettings,
    state: Searching,
    count: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "count component"]:
    """Children of the population, as many of each member; anything before there is one."""
    first_key, start_key, step_key = jax.random.split(key, 3)
    anywhere = jax.random.uniform(first_key, (count, state.population.point.shape[1]))
    # Members that are alive come first; whose turn it is begins anywhere among them.
    order = jnp.argsort(~state.alive, stable=True)
    number = jnp.sum(state.alive, dtype=jnp.int32)
    start = jax.random.randint(start_key, (), 0, jnp.maximum(number, 1), jnp.int32)
    turn = (start + jnp.arange(count, dtype=jnp.int32)) % jnp.maximum(number, 1)
    parent = state.population.point[order[turn]]
    step = settings.mutation_scale * jax.random.normal(step_key, parent.shape)
    return jnp.where(number > 0, jnp.clip(parent + step, 0.0, 1.0), anywhere)


def joined(state: Searching, data: MeasuredQueries, usable: Bool[Array, " row"]) -> Joined:
    """The population and the usable rows of a batch; rows that failed are zeros, and not usable."""
    usable = usable & data.known
    data = jax.tree.map(
        lambda x: jnp.where(usable.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0.0), data
    )
    rows = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.population, data)
    return Joined(rows, jnp.concatenate([state.alive, usable]))


def novelty(
    descriptor: Float[Array, "row feature"],
    usable: Bool[Array, " row"],
    known: Float[Array, "place feature"],
    filled: Bool[Array, " place"],
    neighbours: int,
) -> Float[Array, " row"]:
    """Mean distance of each row to the nearest others, among the rows and what is known.

    Where there are fewer others than `neighbours`, the mean of those that there are; 0 without any.
    """
    others = jnp.concatenate([descriptor, known])
    apart = jnp.sum((descriptor[:, None, :] - others[None, :, :]) ** 2, axis=-1)
    counts = jnp.broadcast_to(jnp.concatenate([usable, filled])[None, :], apart.shape)
    counts = counts & ~jnp.eye(*apart.shape, dtype=bool)
    apart = jnp.where(counts, apart, jnp.inf)
    nearest = -jax.lax.top_k(-apart, min(neighbours, apart.shape[1]))[0]
    there = jnp.isfinite(nearest)
    total = jnp.sum(jnp.sqrt(jnp.where(there, nearest, 0.0)), axis=1)
    return total / jnp.maximum(jnp.sum(there, axis=1), 1)


def survivors(
    state: Searching, both: Joined, score: Float[Array, " row"]
) -> tuple[MeasuredQueries, Bool[Array, " member"]]:
    """The rows of the highest scores, as many as there are members."""
    members = state.alive.shape[0]
    best, row = jax.lax.top_k(jnp.where(both.usable, score, -jnp.inf), members)
    return jax.tree.map(lambda x: x[row], both.rows), jnp.isfinite(best)


def any_of(usable: Bool[Array, " row"], count: int, *, key: PRNGKeyArray) -> Bool[Array, " row"]:
    """So many of the usable rows, drawn without replacement; fewer where there are fewer."""
    return highest(usable, jax.random.uniform(key, usable.shape), count)


def highest(
    usable: Bool[Array, " row"], score: Float[Array, " row"], count: int
) -> Bool[Array, " row"]:
    """So many of the usable rows, those of the highest scores; fewer where there are fewer."""
    count = min(count, usable.shape[0])
    best, row = jax.lax.top_k(jnp.where(usable, score, -jnp.inf), count)
    return jnp.zeros(usable.shape, bool).at[row].set(jnp.isfinite(best))


def metrics(state: Searching) -> dict[str, Float[Array, ""]]:
    """What is logged of a search."""
    return {**archive_metrics(state.found), "known": state.known.coverage()}


def archive_metrics(found: Archive) -> dict[str, Float[Array, ""]]:
    """What is logged of an archive."""
    return {
        "coverage": found.coverage(),
        "qd_score": found.qd_score(),
        "max_objective": found.max(),
    }
