"""SERENE: novelty search finds where rewards are, and emitters climb there, in turn."""

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
from headwater.parts.quality_diversity import emitters, novelty
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.emitters import AbstractEmitterSettings, Emitters
from headwater.parts.quality_diversity.novelty import AbstractNoveltySettings, Searching


class SERENEState(eqx.Module):
    """The search for novelty, and the emitters."""

    search: Searching
    emitters: Emitters


class SERENE(
    AbstractMethod[MeasuredSpace, MeasuredQueries, SERENEState],
    AbstractArchiving[SERENEState],
    AbstractNoveltySettings,
    AbstractEmitterSettings,
):
    """Explores by novelty, and climbs by emitters wherever a reward was found, in turn.

    While it explores, every solution of a value above 0 may become the beginning of an emitter.
    While it climbs, emitters begin where rewards are most novel among all rewards: six members, the
    best of themselves and their children, that must improve within six generations and end when
    they no longer do. What emitters find most novel joins the archive of what is known.

    **Arguments:**

    - `population_size`, `mutation_scale`, `num_neighbours`, `num_added`, `cells`: see
      `parts/quality_diversity/novelty.py`.
    - `num_emitters`, `phase_evaluations`, `patience`: see `parts/quality_diversity/emitters.py`.

    **Reference:** Paolo et al. (2021), arXiv:2102.03140.

    **Differences from the paper:** emitters climb side by side, so that a batch is evaluated at
    once, and not one after the other by their place on a front of novelty and improvement; they
    begin at a solution itself and not at six near it; they end after `patience` generations without
    a better one; slots without an emitter explore; what is rewarded does not count as known.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "paolo2021sparse",
        summary="novelty finds rewards, and emitters climb there",
        parents=("NoveltySearch",),
    )

    population_size: int = integer(100)
    mutation_scale: float = non_negative(0.005)
    num_neighbours: int = integer(15)
    num_added: int = integer(5)
    cells: int = integer(50)
    num_emitters: int = integer(16)
    phase_evaluations: int = integer(1000, static=False)
    patience: int = integer(10, static=False)

    def init(self, problem: MeasuredSpace, *, key: PRNGKeyArray) -> SERENEState:
        return SERENEState(novelty.begin(self, problem), emitters.begin(self, problem))

    def update(self, state: SERENEState, data: MeasuredQueries, *, key: PRNGKeyArray):
        search, climbers = state.search, state.emitters
        _, emitted = emitters.owners(self, climbers, data.value.shape[0])
        both = novelty.joined(search, data, ~emitted)
        known = search.known
        score = novelty.novelty(
            both.rows.measures, both.usable, known.measures, known.filled, self.num_neighbours
        )
        population, alive = novelty.survivors(search, both, score)
        added = novelty.any_of(data.known & ~emitted, self.num_added, key=key)
        far = novelty.novelty(
            jnp.where(data.known[:, None], data.measures, 0.0),
            data.known,
            known.measures,
            known.filled,
            self.num_neighbours,
        )
        added = added | novelty.highest(data.known & emitted, far, self.num_added)
        search = Searching(
            population,
            alive,
            known.append(data.point, data.value, data.measures, added),
            search.found.insert(data.point, data.value, data.measures),
        )
        climbers = emitters.climb(self, climbers, data, data.measures)
        climbers = emitters.recruit(
            self, climbers, climbers.rewarded.measures, population.point, alive
        )
        metrics = novelty.metrics(search) | {"emitters": jnp.mean(1.0 * climbers.running)}
        return SERENEState(search, climbers), metrics

    def offspring(
        self, state: SERENEState, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        explore_key, climb_key = jax.random.split(key)
        explored = novelty.varied(self, state.search, count, key=explore_key)
        return emitters.varied(self, state.emitters, explored, key=climb_key)

    def archive(self, state: SERENEState) -> Archive:
        return state.search.found
