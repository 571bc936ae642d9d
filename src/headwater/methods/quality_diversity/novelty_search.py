"""Novelty search: vary what did something that nothing else did, whatever it is worth."""

from typing import ClassVar

from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative
from headwater.core.method import AbstractArchiving, AbstractMethod, Info
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.parts.quality_diversity import novelty
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.novelty import AbstractNoveltySettings, Searching


class NoveltySearch(
    AbstractMethod[MeasuredSpace, MeasuredQueries, Searching],
    AbstractArchiving[Searching],
    AbstractNoveltySettings,
):
    r"""Searches for solutions whose measures differ from those of all others.

    Novelty is the mean distance, in the space of measures, to the $k$ nearest others among the
    population, its children and an archive of earlier ones, of which a few of each update join it.
    The most novel of population and children are varied next. Values are not read; the best of each
    cell of measures is kept all the same.

    **Arguments:**

    - `population_size`, `mutation_scale`, `num_neighbours` ($k$), `num_added`, `cells`: see
      `parts/quality_diversity/novelty.py`.

    **Reference:** Lehman and Stanley (2011), Abandoning Objectives.

    **Differences from the paper:** what joins the archive is drawn and not above a threshold, as in
    Paolo et al. (2021); real vectors are varied and not networks that grow.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "lehman2011abandoning", summary="vary what differs most from all others", rewards=False
    )

    population_size: int = integer(100)
    mutation_scale: float = non_negative(0.005)
    num_neighbours: int = integer(15)
    num_added: int = integer(5)
    cells: int = integer(50)

    def init(self, problem: MeasuredSpace, *, key: PRNGKeyArray) -> Searching:
        return novelty.begin(self, problem)

    def update(self, state: Searching, data: MeasuredQueries, *, key: PRNGKeyArray):
        both = novelty.joined(state, data, data.known)
        known = state.known
        score = novelty.novelty(
            both.rows.measures, both.usable, known.measures, known.filled, self.num_neighbours
        )
        population, alive = novelty.survivors(state, both, score)
        added = novelty.any_of(data.known, self.num_added, key=key)
        state = Searching(
            population,
            alive,
            known.append(data.point, data.value, data.measures, added),
            state.found.insert(data.point, data.value, data.measures),
        )
        return state, novelty.metrics(state)

    def offspring(
        self, state: Searching, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        return novelty.varied(self, state, count, key=key)

    def archive(self, state: Searching) -> Archive:
        return state.found
