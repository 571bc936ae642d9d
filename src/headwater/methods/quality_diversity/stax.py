"""STAX: SERENE in features that an autoencoder learns of frames."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, sizes
from headwater.core.method import AbstractArchiving, AbstractMethod, Info
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.parts.quality_diversity import emitters, learned_descriptor, novelty
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.emitters import AbstractEmitterSettings, Emitters
from headwater.parts.quality_diversity.learned_descriptor import (
    AbstractDescriptorSettings,
    Descriptor,
)
from headwater.parts.quality_diversity.novelty import AbstractNoveltySettings, Searching


class STAXState(eqx.Module):
    """The search and the emitters, which hold frames, and what describes these."""

    search: Searching
    emitters: Emitters
    descriptor: Descriptor


class STAX(
    AbstractMethod[MeasuredSpace, MeasuredQueries, STAXState],
    AbstractArchiving[STAXState],
    AbstractNoveltySettings,
    AbstractEmitterSettings,
    AbstractDescriptorSettings,
):
    """Finds rewards and climbs to them, with nothing told of what solutions do but frames.

    TAXONS explores, emitters as in SERENE climb, in turn; the autoencoder sees what was rewarded,
    too. Measures are not read: they only say where a solution belongs in the archive that is kept.

    **Arguments:**

    - `population_size`, `mutation_scale`, `num_neighbours`, `num_added`, `cells`: see
      `parts/quality_diversity/novelty.py`.
    - `num_emitters`, `phase_evaluations`, `patience`: see `parts/quality_diversity/emitters.py`.
    - `hidden_sizes`, `feature_size`, `trained`, `training_evaluations`, `num_steps`, `batch_size`,
      `learning_rate`: see `parts/quality_diversity/learned_descriptor.py`.

    **Reference:** Paolo et al. (2023), arXiv:2111.01919.

    **Differences from the paper:** those of `SERENE` and of `TAXONS`; one frame of each solution.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "paolo2023discovering",
        summary="rewards are found and climbed in features of frames",
        parents=("SERENE", "TAXONS"),
    )

    population_size: int = integer(100)
    mutation_scale: float = non_negative(0.005)
    num_neighbours: int = integer(15)
    num_added: int = integer(5)
    cells: int = integer(50)
    num_emitters: int = integer(16)
    phase_evaluations: int = integer(1000, static=False)
    patience: int = integer(10, static=False)
    hidden_sizes: tuple[int, ...] = sizes((64,))
    feature_size: int = integer(10)
    trained: bool = flag(True)
    training_evaluations: int = integer(1000, static=False)
    num_steps: int = integer(500)
    batch_size: int = integer(128)
    learning_rate: float = non_negative(1e-3)

    def init(self, problem: MeasuredSpace, *, key: PRNGKeyArray) -> STAXState:
        descriptor = learned_descriptor.begin(self, problem, key=key)
        search = novelty.begin(self, problem, frames=True)
        return STAXState(search, emitters.begin(self, problem, frames=True), descriptor)

    def update(self, state: STAXState, data: MeasuredQueries, *, key: PRNGKeyArray):
        add_key, coin_key, train_key = jax.random.split(key, 3)
        search, climbers, descriptor = state.search, state.emitters, state.descriptor
        rows = data.value.shape[0]
        _, emitted = emitters.owners(self, climbers, rows)
        both, known = novelty.joined(search, data, ~emitted), search.known
        score = learned_descriptor.novelty_or_surprise(self, descriptor, both, known, key=coin_key)
        population, alive = novelty.survivors(search, both, score)
        added = novelty.any_of(data.known & ~emitted, self.num_added, key=add_key)
        far = novelty.novelty(
            descriptor.encoder(jnp.where(data.known[:, None], data.frame, 0.0)),
            data.known,
            descriptor.encoder(known.measures),
            known.filled,
            self.num_neighbours,
        )
        added = added | novelty.highest(data.known & emitted, far, self.num_added)
        known = known.append(data.point, data.value, data.frame, added)
        found = search.found.insert(data.point, data.value, data.measures)
        climbers = emitters.climb(self, climbers, data, data.frame)
        rewarded = climbers.rewarded
        frames = jnp.concatenate([both.rows.frame, known.measures, rewarded.measures])
        usable = jnp.concatenate([both.usable, known.filled, rewarded.filled])
        descriptor = learned_descriptor.after(self, descriptor, frames, usable, rows, key=train_key)
        described = descriptor.encoder(rewarded.measures)
        climbers = emitters.recruit(self, climbers, described, population.point, alive)
        search = Searching(population, alive, known, found)
        metrics = novelty.metrics(search) | {
            "emitters": jnp.mean(1.0 * climbers.running),
            "reconstruction_loss": descriptor.loss,
        }
        return STAXState(search, climbers, descriptor), metrics

    def offspring(
        self, state: STAXState, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        explore_key, climb_key = jax.random.split(key)
        explored = novelty.varied(self, state.search, count, key=explore_key)
        return emitters.varied(self, state.emitters, explored, key=climb_key)

    def archive(self, state: STAXState) -> Archive:
        return state.search.found
