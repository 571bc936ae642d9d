"""Emitters: small populations that climb from where something was worth a reward, side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.novelty import novelty

_MEMBERS = 6
"""Solutions of an emitter."""
_TRIAL, _SIDE = 6, 3
"""Generations after which an emitter must have improved, comparing the first and the last few."""
_SHARE_OF_DISTANCE = 1.0 / 3.0
"""Of the distance from where an emitter begins to the nearest other solution: the standard
deviation of its mutations, in each component."""
_REWARDED = 512


class AbstractEmitterSettings(eqx.Module):
    """Settings of emitters that methods share.

    **Arguments:** `num_emitters`: that climb at a time, each with an equal part of an update;
    `phase_evaluations`: of exploring, and as many of climbing, in turn; `patience`: generations
    without a better solution after which an emitter ends.
    """

    mutation_scale: eqx.AbstractVar[float]
    num_neighbours: eqx.AbstractVar[int]
    num_emitters: eqx.AbstractVar[int]
    phase_evaluations: eqx.AbstractVar[int]
    patience: eqx.AbstractVar[int]


class Emitters(eqx.Module):
    """The emitters, and where the next may begin.

    **Arguments:** `point`, `value`, `alive`: members of each emitter; `running`; `spread`: of its
    mutations; `best`: its highest value; `generation`, `waited`: of it, and since it last improved;
    `early`, `late`: sums of the mean values of its first generations and of the last of its trial;
    `rewarded`: an archive of what was worth more than nothing, whose measures are what descriptors
    are made of; `begun`: which of these emitters began at; `evaluations`: so far.
    """

    point: Float[Array, "emitter member component"]
    value: Float[Array, "emitter member"]
    alive: Bool[Array, "emitter member"]
    running: Bool[Array, " emitter"]
    spread: Float[Array, " emitter"]
    best: Float[Array, " emitter"]
    generation: Int[Array, " emitter"]
    waited: Int[Array, " emitter"]
    early: Float[Array, " emitter"]
    late: Float[Array, " emitter"]
    rewarded: Archive
    begun: Bool[Array, " place"]
    evaluations: Int[Array, ""]


def begin(
    settings: AbstractEmitterSettings, problem: MeasuredSpace, *, frames: bool = False
) -> Emitters:
    """Before any evaluation. `frames`: descriptors are made of frames, not of measures."""
    count = settings.num_emitters
    zeros, nothing = jnp.zeros(count), jnp.zeros(count, jnp.int32)
    width = problem.frame_size if frames else problem.measures
    return Emitters(
        jnp.zeros((count, _MEMBERS, problem.size)),
        jnp.zeros((count, _MEMBERS)),
        jnp.zeros((count, _MEMBERS), bool),
        jnp.zeros(count, bool),
        zeros,
        zeros,
        nothing,
        nothing,
        zeros,
        zeros,
        Archive.unstructured(problem.size, width, _REWARDED),
        jnp.zeros(_REWARDED, bool),
        jnp.zeros((), jnp.int32),
    )


def climbing(settings: AbstractEmitterSettings, state: Emitters) -> Bool[Array, ""]:
    """Whether the emitters have their turn, and exploration has not."""
    return (state.evaluations // settings.phase_evaluations) % 2 == 1


def owners(
    settings: AbstractEmitterSettings, state: Emitters, rows: int
) -> tuple[Int[Array, " row"], Bool[Array, " row"]]:
    """The emitter of each row of an update, and whether it has one that is running."""
    owner = jnp.arange(rows, dtype=jnp.int32) % settings.num_emitters
    return owner, climbing(settings, state) & state.running[owner]


def varied(
    settings: AbstractEmitterSettings,
    state: Emitters,
    explored: Float[Array, "row component"],
    *,
    key: PRNGKeyArray,
) -> Float[Array, "row component"]:
    """The rows of emitters that run are their children; the others are what was `explored`."""
    rows = explored.shape[0]
    owner, emitted = owners(settings, state, rows)
    turn = jnp.arange(rows, dtype=jnp.int32) // settings.num_emitters
    number = jnp.maximum(jnp.sum(state.alive, axis=1, dtype=jnp.int32), 1)
    # Members that are alive come first.
    parent = state.point[owner, turn % number[owner]]
    step = state.spread[owner][:, None] * jax.random.normal(key, parent.shape)
    return jnp.where(emitted[:, None], jnp.clip(parent + step, 0.0, 1.0), explored)


def climb(
    settings: AbstractEmitterSettings,
    state: Emitters,
    data: MeasuredQueries,
    raw: Float[Array, "row pixel"],
) -> Emitters:
    """After an update: members are the best of members and children; some emitters end.

    **Arguments:** `raw`: what descriptors are made of.
    """
    rows = data.value.shape[0]
    owner, emitted = owners(settings, state, rows)
    known = data.known
    mine = (owner[None, :] == jnp.arange(settings.num_emitters, dtype=jnp.int32)[:, None]) & (
        (emitted & known)[None, :]
    )
    value = jnp.where(known, data.value, 0.0)
    each = jnp.broadcast_to(value[None, :], mine.shape)
    # Children come first: of equals they survive, and wander where values are flat.
    values = jnp.concatenate([each, state.value], axis=1)
    there = jnp.concatenate([mine, state.alive], axis=1)
    point = jnp.where(known[:, None], data.point, 0.0)
    points = jnp.concatenate(
        [jnp.broadcast_to(point[None], (len(mine), *point.shape)), state.point], axis=1
    )
    top, row = jax.lax.top_k(jnp.where(there, values, -jnp.inf), _MEMBERS)
    alive = jnp.isfinite(top)
    top = jnp.where(alive, top, 0.0)
    turn = jnp.any(mine, axis=1)
    count = jnp.maximum(jnp.sum(alive, axis=1), 1)
    mean = jnp.sum(top, axis=1) / count
    better = turn & (top[:, 0] > state.best)
    waited = jnp.where(better, 0, state.waited + turn.astype(jnp.int32))
    generation = state.generation + turn.astype(jnp.int32)
    early = state.early + jnp.where(turn & (generation <= _SIDE), mean, 0.0)
    in_trial = (generation > _TRIAL - _SIDE) & (generation <= _TRIAL)
    late = state.late + jnp.where(turn & in_trial, mean, 0.0)
    fails = (generation == _TRIAL) & (late <= early)
    running = state.running & ~(turn & (fails | (waited >= settings.patience)))
    # Found while exploring, or better than all that its emitter found before.
    beats = known & jnp.where(emitted, value > state.best[owner], value > 0.0)
    beats = beats & (value > 0.0)
    rewarded, begun = _kept(state, data, raw, beats, emitted)
    return Emitters(
        jnp.take_along_axis(points, row[:, :, None], axis=1),
        top,
        alive,
        running,
        state.spread,
        jnp.where(turn, jnp.maximum(state.best, top[:, 0]), state.best),
        generation,
        waited,
        early,
        late,
        rewarded,
        begun,
        state.evaluations + rows,
    )


def _kept(state, data, raw, beats, emitted):
    """The archive of what is rewarded with these rows; at what emitters found none begins."""
    value = jnp.where(beats, data.value, 0.0)
    point, raw = (jnp.where(beats[:, None], x, 0.0) for x in (data.point, raw))
    rewarded = state.rewarded.append(point, value, raw, beats)
    places = rewarded.places
    order = jnp.cumsum(beats.astype(jnp.int32))
    place = jnp.where(
        beats & (order > order[-1] - places),
        (state.rewarded.count + order - 1) % places,
        places,
    )
    return rewarded, state.begun.at[place].set(emitted, mode="drop")


def recruit(
    settings: AbstractEmitterSettings,
    state: Emitters,
    descriptor: Float[Array, "place feature"],
    others: Float[Array, "row component"],
    usable: Bool[Array, " row"],
) -> Emitters:
    """Emitters that ended begin anew, where rewards are most novel among all rewards.

    **Arguments:** `descriptor`: of what is rewarded; `others`, `usable`: solutions, of which the
    nearest says how far an emitter's mutations go.
    """
    rewarded = state.rewarded
    nothing = jnp.zeros((0, descriptor.shape[1])), jnp.zeros(0, bool)
    score = novelty(descriptor, rewarded.filled, *nothing, settings.num_neighbours)
    free = rewarded.filled & ~state.begun
    score, place = jax.lax.top_k(jnp.where(free, score, -jnp.inf), len(state.running))
    # The first slot without an emitter gets the most novel beginning, and so on.
    rank = jnp.cumsum((~state.running).astype(jnp.int32)) - 1
    place, score = place[rank], score[rank]
    starts = ~state.running & jnp.isfinite(score)
    ancestor, value = rewarded.solution[place], rewarded.objective[place]
    apart = jnp.linalg.norm(ancestor[:, None, :] - others[None, :, :], axis=-1)
    apart = jnp.min(jnp.where(usable[None, :] & (apart > 0.0), apart, jnp.inf), axis=1)
    spread = jnp.where(jnp.isfinite(apart), _SHARE_OF_DISTANCE * apart, settings.mutation_scale)
    first = jnp.arange(_MEMBERS) == 0
    fresh = starts[:, None]
    return Emitters(
        jnp.where(fresh[:, :, None], ancestor[:, None, :], state.point),
        jnp.where(fresh, value[:, None], state.value),
        jnp.where(fresh, first[None, :], state.alive),
        state.running | starts,
        jnp.where(starts, spread, state.spread),
        jnp.where(starts, value, state.best),
        jnp.where(starts, 0, state.generation),
        jnp.where(starts, 0, state.waited),
        jnp.where(starts, 0.0, state.early),
        jnp.where(starts, 0.0, state.late),
        rewarded,
        state.begun.at[jnp.where(starts, place, len(state.begun))].set(True, mode="drop"),
        state.evaluations,
    )
