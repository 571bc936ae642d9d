"""CycleQD: models merged from experts, with an archive for each task that they are measured on."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative
from headwater.core.method import AbstractArchiving, AbstractMethod, Info
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.ops.linear_algebra import singular_decomposition
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.novelty import archive_metrics

_LEAST_SHARE, _SLOPE = 0.5, 0.8
"""Of the weight by which parents are drawn: the worst in one respect, and the best beyond it."""


class Directions(eqx.Module):
    """Singular vectors and values of what the experts changed in one array, as a matrix.

    **Arguments:** `left`, `strength`, `right`: their product is the change.
    """

    left: Float[Array, "expert row rank"]
    strength: Float[Array, "expert rank"]
    right: Float[Array, "expert rank column"]


class CycleQDState(eqx.Module):
    """An archive for each task, and the experts that all solutions are made of.

    **Arguments:** `archives`: of each task, whose measure is the objective there and in which the
    other measures have cells; `experts`: their difference from the middle of the unit cube;
    `directions`: of that, for each array; `evaluations`, `updates`: so far.
    """

    archives: tuple[Archive, ...]
    experts: Float[Array, "expert component"]
    directions: tuple[Directions, ...]
    evaluations: Int[Array, ""]
    updates: Int[Array, ""]


class CycleQD(
    AbstractMethod[MeasuredSpace, MeasuredQueries, CycleQDState],
    AbstractArchiving[CycleQDState],
):
    r"""Merges experts of several tasks: each in turn is improved, the others are cells.

    The measures are the scores on the tasks, more is better; the `value` of a solution only says
    whether its evaluation failed. Seed $k$ of the space is the expert of task $k$, and the middle
    of the space is the model $\theta_0$ that they began as. A solution $\theta_0 + \tau$ is in the
    archive of task $k$ if none with the same cells of the other scores has a higher score on $k$.
    In an update whose turn task $k$ has, a child is

    $$\tau = \frac{w_1\tau_1 + w_2\tau_2}{w_1 + w_2} + \sum_j r_j s_j u_j v_j^\top,\quad
    w_i \sim N(1, \mathtt{weight\_scale}^2),\quad r_j \sim U(0, \mathtt{mutation\_rate})$$

    of two solutions of its archive, which are drawn with probabilities that grow with the score and
    the cells, and of the singular vectors of what expert $k$ changed in each array. With a
    `mutation_scale` and no `mutation_rate`, mutations are normal, which the paper compares with.

    **Arguments:**

    - `cells`: into how many each score is divided.
    - `weight_scale`: standard deviation of the weights that parents are merged with.
    - `mutation_rate`: how much of each singular direction is added at most.
    - `mutation_scale`: standard deviation of what is added to each component, in the unit cube.
    - `flip_interval`: updates after which the next task has its turn; the expert whose directions
      are added is another in each update all the same.

    **Reference:** Kuroki, Nakamura, Akiba and Tang (2025), Agent Skill Acquisition for Large
    Language Models via CycleQD, arXiv:2410.14735.

    **Differences from the paper:** an update has any number of children in place of one; arrays
    of one axis are mutated too, as columns; without seeds the experts are uniform solutions; at the
    end the best of the archives are not merged into one model.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info("kuroki2025agent", summary="merges experts, each task in turn")

    cells: int = integer(15)
    weight_scale: float = non_negative(0.01)
    mutation_rate: float = non_negative(0.1)
    mutation_scale: float = non_negative(0.0)
    flip_interval: int = integer(1, static=False)

    def init(self, problem: MeasuredSpace, *, key: PRNGKeyArray) -> CycleQDState:
        tasks, size = problem.measures, problem.size
        known = problem.unit_seeds
        seeds = jax.random.uniform(key, (tasks, size)) if known is None else known
        if len(seeds) != tasks:
            raise SpecificationError(
                f"CycleQD needs a seed for each of the {tasks} measures: the space has {len(seeds)}"
            )
        experts = seeds - 0.5
        bounds = problem.measure_low, problem.measure_high
        cells = [tuple(1 if i == k else self.cells for i in range(tasks)) for k in range(tasks)]
        return CycleQDState(
            tuple(Archive.grid(size, *bounds, each) for each in cells),
            experts,
            _directions(experts, problem.shapes or ((size,),)),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
        )

    def update(self, state: CycleQDState, data: MeasuredQueries, *, key: PRNGKeyArray):
        score = jnp.where(data.known[:, None], data.measures, jnp.nan)
        inserted = (x.insert(data.point, score[:, k], score) for k, x in enumerate(state.archives))
        state = dataclasses.replace(
            state,
            archives=tuple(inserted),
            evaluations=state.evaluations + data.value.shape[0],
            updates=state.updates + 1,
        )
        return state, archive_metrics(self.archive(state))

    def offspring(
        self, state: CycleQDState, count: int, *, key: PRNGKeyArray
    ) -> Float[Array, "count component"]:
        parent_key, weight_key, mutation_key = jax.random.split(key, 3)
        tasks, passed = len(state.experts), jnp.floor(state.updates / self.flip_interval)
        parents = _parents(state, passed.astype(jnp.int32) % tasks, count, key=parent_key)
        weight = 1.0 + self.weight_scale * jax.random.normal(weight_key, (2, count, 1))
        child = jnp.sum(weight * parents, axis=0) / jnp.sum(weight, axis=0)
        child = child + self._mutation(state, state.updates % tasks, count, key=mutation_key)
        # The experts themselves come first.
        number = state.evaluations + jnp.arange(count, dtype=jnp.int32)
        expert = state.experts[jnp.minimum(number, tasks - 1)]
        return jnp.clip(0.5 + jnp.where((number < tasks)[:, None], expert, child), 0.0, 1.0)

    def archive(self, state: CycleQDState) -> Archive:
        """The archives of all tasks, one after the other: a solution may be in several."""
        # Tables of one form: what cells there are is no longer said.
        tables = [dataclasses.replace(x, low=(), high=(), cells=()) for x in state.archives]
        return jax.tree.map(lambda *x: jnp.concatenate(x) if x[0].ndim else sum(x), *tables)

    def _mutation(self, state: CycleQDState, expert, count: int, *, key):
        """What is added to each child, of an expert's directions and of noise."""
        share_key, normal_key = jax.random.split(key)
        ends = np.cumsum([part.strength.shape[1] for part in state.directions]).tolist()
        shares = self.mutation_rate * jax.random.uniform(share_key, (count, ends[-1]))
        added = []
        for part, share in zip(state.directions, jnp.split(shares, ends[:-1], axis=1)):
            scaled = share * part.strength[expert][None]
            turned = part.left[expert][None] * scaled[:, None, :]
            added.append((turned @ part.right[expert]).reshape(count, -1))
        normal = jax.random.normal(normal_key, (count, state.experts.shape[1]))
        return jnp.concatenate(added, axis=1) + self.mutation_scale * normal


def _directions(experts: Float[Array, "expert component"], shapes) -> tuple[Directions, ...]:
    """The singular value decomposition of each array of each expert, as a matrix."""
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1].tolist()
    found, ones = [], jnp.ones((len(experts), 1))
    for part, shape in zip(jnp.split(experts, ends, axis=1), shapes):
        matrix = part.reshape(len(part), (*shape, 1)[0], -1)
        if matrix.shape[2] > 1:
            found.append(jax.vmap(singular_decomposition)(matrix))
        else:  # A column is its own direction, which needs no length of one.
            found.append((matrix, ones, ones[:, :, None]))
    return tuple(Directions(*each) for each in found)


def _parents(state: CycleQDState, task, count: int, *, key: PRNGKeyArray):
    """Two different solutions of a task's archive for each child `[2, child, component]`.

    The same twice where there is one alone, and experts where there is none; from the middle.
    """
    archives, experts = state.archives, state.experts
    weight = jnp.stack([_drawing_weight(archive) for archive in archives])[task]
    # The largest sums with Gumbel noise are draws without replacement.
    noise = jax.random.gumbel(key, (count, len(weight)))
    score, place = jax.lax.top_k(jnp.log(weight)[None] + noise, min(2, len(weight)))
    first, last = place[:, 0], jnp.where(score[:, -1] > -jnp.inf, place[:, -1], place[:, 0])
    places = jnp.stack([first, last])
    drawn = jnp.stack([archive.solution[places] for archive in archives])[task] - 0.5
    turn = np.add.outer(np.arange(2), np.arange(count)) % len(experts)
    return jnp.where(jnp.any(weight > 0.0), drawn, experts[turn])


def _drawing_weight(archive: Archive) -> Float[Array, " place"]:
    """How often each solution is a parent: a factor for its objective and each of its cells."""
    cell = np.stack(np.unravel_index(np.arange(archive.places), archive.cells))
    values, filled = jnp.stack([archive.objective, *cell.astype(np.float32)]), archive.filled
    low = jnp.min(jnp.where(filled[None], values, jnp.inf), axis=1, keepdims=True)
    high = jnp.max(jnp.where(filled[None], values, -jnp.inf), axis=1, keepdims=True)
    share = (values - low) / jnp.where(high > low, high - low, 1.0)
    factor = jnp.where(high > low, _LEAST_SHARE + _SLOPE * share, 1.0)
    return jnp.where(filled, jnp.prod(factor, axis=0), 0.0)
