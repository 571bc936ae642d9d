"""TAXONS: novelty search in features that an autoencoder learns of frames."""

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
from headwater.parts.quality_diversity import learned_descriptor, novelty
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.learned_descriptor import (
    AbstractDescriptorSettings,
    Descriptor,
)
from headwater.parts.quality_diversity.novelty import AbstractNoveltySettings, Searching


class TAXONSState(eqx.Module):
    """The search, which holds frames, and what describes them."""

    search: Searching
    descriptor: Descriptor


class TAXONS(
    AbstractMethod[MeasuredSpace, MeasuredQueries, TAXONSState],
    AbstractArchiving[TAXONSState],
    AbstractNoveltySettings,
    AbstractDescriptorSettings,
):
    """Searches for what is novel, or surprising, in frames of what solutions did.

    An autoencoder of frames is trained on what was found, more and more rarely. In each update a
    coin decides what survives: what is most novel in its features, or what it reconstructs worst.
    Measures are not read: they only say where a solution belongs in the archive that is kept.

    **Arguments:**

    - `population_size`, `mutation_scale`, `num_neighbours`, `num_added`, `cells`: see
      `parts/quality_diversity/novelty.py`.
    - `hidden_sizes`, `feature_size`, `trained`, `training_evaluations`, `num_steps`, `batch_size`,
      `learning_rate`: see `parts/quality_diversity/learned_descriptor.py`.

    **Reference:** Paolo et al. (2020), arXiv:1909.05508.

    **Differences from the paper:** the autoencoder is fully connected, and trained for a fixed
    number of steps; the gaps between trainings grow, as in Paolo et al. (2023).
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "paolo2020unsupervised",
        summary="novelty and surprise of what an autoencoder sees",
        parents=("NoveltySearch",),
        rewards=False,
    )

    population_size: int = integer(100)
    mutation_scale: float = non_negative(0.005)
    num_neighbours: int = integer(15)
    num_added: int = integer(5)
    cells: int = integer(50)
    hidden_sizes: tuple[int, ...] = sizes((64,))
    feature_size: int = integer(10)
    trained: bool = flag(True)
    training_evaluations: int = integer(1000, static=False)
    num_steps: int = integer(500)
    batch_size: int = integer(128)
    learning_rate: float = non_negative(1e-3)

    def init(self, problem: MeasuredSpace, *, key: PRNGKeyArray) -> TAXONSState:
        descriptor = learned_descriptor.begin(self, problem, key=key)
        return TAXONSState(novelty.begin(self, problem, frames=True), descriptor)

    def update(self, state: TAXONSState, data: MeasuredQueries, *, key: PRNGKeyArray):
        add_key, coin_key, train_key = jax.random.split(key, 3)
        search, descriptor = state.search, state.descriptor
        both, known = novelty.joined(search, data, data.known), search.known
        score = learned_descriptor.novelty_or_surprise(self, descriptor, both, known, key=coin_key)
        population, alive = novelty.survivors(search, both, score)
        added = novelty.any_of(data.known, self.num_added, key=add_key)
        known = known.append(data.point, data.value, data.frame, added)
        found = search.found.insert(data.point, data.value, data.measures)
        frames = jnp.concatenate([both.rows.frame, known.measures])
        usable = jnp.concatenate([both.usable, known.filled])
        rows = data.value.shape[0]
        descriptor = learned_descriptor.after(self, descriptor, frames, usable, rows, key=train_key)
        search = Searching(population, alive, known, found)
        metrics = novelty.metrics(search) | {"reconstruction_loss": descriptor.loss}
        return TAXONSState(search, descriptor), metrics

    def offspring(
        self, state: TAXONSState, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        return novelty.varied(self, state.search, count, key=key)

    def archive(self, state: TAXONSState) -> Archive:
        return state.search.found
