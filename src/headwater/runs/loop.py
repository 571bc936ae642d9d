"""The host shell of the one loop: chunks of updates, and what happens between them.

Everything about time, logging, checkpoints, evaluation and progress is here and in the journal, and
nowhere else; what an update does is in `learn`.
Numbers depend only on the stages, the seed and the seeds' indices: the randomness of update `i` is
folded in from `i`, so chunk sizes, checkpoints and interruptions change nothing.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import RunError, SpecificationError
from headwater.core.fields import check_choice
from headwater.core.method import Agent
from headwater.runs.best import Best
from headwater.runs.compiled import forget_programs
from headwater.runs.directory import RunDirectory
from headwater.runs.interruption import raise_if_interrupted
from headwater.runs.journal import Evaluate, Journal, finite_leaves
from headwater.runs.layout import (
    Place,
    SeedLayout,
    check_each,
    join,
    over_seeds,
    spread_model,
    spread_rows,
)
from headwater.runs.learn import advance, learn_draw, shapes_of_metrics, shapes_of_update
from headwater.runs.progress import Progress
from headwater.runs.stage import Outcome, Outcomes, Stage
from headwater.runs.trackers.tracker import AbstractTracker

_CHUNK_SECONDS = 0.7
_CHECKPOINT_SECONDS = 60.0


class Result(NamedTuple):
    """What a run leaves: outcomes with a leading seed axis, and what was logged.

    **Arguments:** `outcomes`: by stage name; `metrics`, `evaluations`: rows as in the run's files.
    """

    outcomes: Outcomes
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def run(
    stages: Sequence[Stage],
    problems: Any,
    *,
    seeds: int | Sequence[int] = 1,
    seed: int = 0,
    directory: RunDirectory | None = None,
    evaluate: Evaluate | None = None,
    evaluations: int = 10,
    logs: int = 100,
    progress: bool | None = None,
    layout: SeedLayout | None = None,
    earlier: Outcomes | None = None,
    keep: bool = False,
    keep_best: bool = False,
    patience: int | None = None,
    trackers: Sequence[AbstractTracker] = (),
) -> Result:
    """Runs `stages` one after the other, all seeds side by side, and continues what is unfinished.

    **Arguments:** `problems`: what methods are initialised for: one problem for all seeds, or a
    list with one for each seed, which are alike in all but the numbers in their arrays (stages may
    have a source and a measure for each seed, too); `seeds`: how many, or which; `seed`: root of
    all randomness; `directory`: where to log and checkpoint, and to continue from if it holds
    checkpoints; `evaluate`: called before the first and after the last update of a stage and
    `evaluations - 1` times between; `logs`: rows of metrics per stage; `progress`: show a bar;
    `layout`: how seeds lie on the hardware; by default one after the other on one CPU device, in
    one batch on one accelerator, and spread over the devices where there are several (small tables
    of finite processes: in one batch everywhere); `earlier`:
    outcomes, with a leading seed axis, of stages of another run that these build on;
    `keep`: keep the method's state at every evaluation, under `snapshots/`, and in the last
    checkpoint the source's, with what it collected; `keep_best`: what a stage that is evaluated
    leaves of each seed is its state at the evaluation with the highest mean return, the first of
    equals; `patience`: such a stage ends once every seed has had so many evaluations without a
    better one, and its best is kept, too; `trackers`: get every number that is written down, and
    are closed in the end.

    Raises `Diverged` when a metric is not finite, `RunError` when files cannot be written or read,
    `SpecificationError` when there are not as many problems as seeds or they are not alike, or when
    the best is to be kept and nothing is evaluated.
    """
    selects = keep_best or patience is not None
    if selects and (evaluate is None or not any(stage.evaluated for stage in stages)):
        raise SpecificationError(
            "nothing is evaluated while it learns, so that there is no best to keep: say what to "
            "evaluate on, or leave out keep_best and patience"
        )
    if patience is not None and patience < 1:
        raise SpecificationError(f"patience = {patience}: it must be at least 1")
    indices = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not indices or not stages or len({s.name for s in stages}) != len(stages):
        raise SpecificationError("a run needs at least one seed, and stages with distinct names")
    if layout is not None:
        check_choice(layout, SeedLayout, "layout")
    for stage in stages:
        check_each(stage, problems, len(indices))
    forget_programs()
    log = Journal(directory, Progress(progress), keep, trackers, indices)
    outcomes: Outcomes = dict(earlier or {})
    if directory is not None:
        directory.lock()
    try:
        start = log.resume()
        for index, stage in enumerate(stages):
            place = Place(index, stage, problems, indices, seed, layout)
            done = start.update if start is not None and start.stage == index else 0
            if start is not None and (index, stage.updates) <= (start.stage, start.update):
                state = log.load_method(place, stage.updates, outcomes)
            else:
                judge = evaluate if stage.evaluated else None
                keeps = selects and stage.evaluated
                state = _run_stage(
                    place, done, outcomes, log, judge, evaluations, logs, keeps, patience
                )
            outcomes[stage.name] = Outcome(stage.method, state)
    finally:
        log.close()
        if directory is not None:
            directory.unlock()
    own = {stage.name: outcomes[stage.name] for stage in stages}
    return Result(own, log.metrics, log.evaluations)


def _run_stage(place, done, outcomes, log, evaluate, evaluations, logs, keeps, patience):
    """**Arguments:** `keeps`: whether the state at the best evaluation is what is left."""
    stage: Stage = place.stage
    best: Best | None = None
    source: Any = stage.source
    unit = stage.updates_per_draw
    evaluate_every = _interval(stage.updates, evaluations, unit)
    log_every = _interval(stage.updates, logs, unit)
    log.progress.begin(stage.name, stage.updates, done)
    if done:
        state, source_state = log.load(place, done, outcomes)
        if done % unit:
            raise RunError(
                f"stage '{stage.name}': {done} updates were made, but {unit} share a draw, so the "
                "run was begun in another way: begin a new run"
            )
    else:
        state = place.first_state(outcomes)
        if place.host:
            source_state = source.init(keys=place.source_keys)
            agent = Agent(stage.method, state)
            source_state = source.prepare(source_state, agent, keys=place.prepare_keys)
        else:
            state = place.spread(state)
            source_state = place.first_source(state)
    state = place.spread(state)
    if not place.host:
        source_state = place.spread(source_state)
    advance = _advance_host if place.host else _advance_compiled
    drawer = ThreadPoolExecutor(1) if place.host and not source.uses_agent else None
    if keeps:
        kept = place.spread(log.load_best(place, done, outcomes)) if done else state
        best = Best(place.seeds, patience, kept)
    sums = place.spread(_no_metrics(place, state, source_state))
    healthy = finite_leaves(state)
    pace = _Pace(unit)
    logged_at, saved_at, unlogged = time.perf_counter(), time.perf_counter(), 0

    def steps() -> int:
        if place.host:
            return int(source.environment_steps(source_state))
        return int(np.max(np.asarray(_environment_steps(place.source, source_state))))

    try:
        if evaluate is not None and not done:
            log.evaluated(place, 0, steps(), evaluate, stage.method, place.gathered(state))
        while done < stage.updates:
            to_log = log_every - done % log_every
            to_evaluation = evaluate_every - done % evaluate_every
            count = min(pace.updates, to_log, to_evaluation, stage.updates - done)
            before = time.perf_counter()
            state, source_state, sums = advance(
                place, state, source_state, sums, done // unit, count // unit, drawer
            )
            jax.block_until_ready(sums)
            pace.took(count, time.perf_counter() - before)
            done, unlogged = done + count, unlogged + count
            log.progress.advance(count, pace.rate)
            raise_if_interrupted()
            if not place.host:
                place.source.first().check(source_state)
            log.check(place, done, sums, unlogged)
            log.check_state(place, done, state, healthy)
            due = done % evaluate_every == 0 or done == stage.updates
            ended = done == stage.updates
            if due or done % log_every == 0:
                seconds = time.perf_counter() - logged_at
                log.logged(place, done, steps(), sums, unlogged, seconds)
                sums, unlogged = place.spread(jax.tree.map(jnp.zeros_like, sums)), 0
                if due and evaluate is not None:
                    here = place.gathered(state)
                    log.evaluated(place, done, steps(), evaluate, stage.method, here)
                    if best is not None:
                        ended |= best.evaluated(state, log.evaluations_of(place))
                if best is not None and ended:
                    state = best.state
                if due or time.perf_counter() - saved_at > _CHECKPOINT_SECONDS:
                    # A stage that ended early is complete, and so needs nothing to go on with.
                    at = stage.updates if ended else done
                    kept = None if best is None else best.state
                    log.save(place, at, state, source_state, kept)
                    saved_at = time.perf_counter()
                logged_at = time.perf_counter()
            if ended:
                break
        if stage.updates == 0:
            log.save(place, 0, state, source_state)
    finally:
        if drawer is not None:
            drawer.shutdown(cancel_futures=True)
        if place.host:
            source.close(source_state)
    return place.gathered(state)


# Compiled pieces --------------------------------------------------------------------------------


@eqx.filter_jit
def _environment_steps(source, source_states):
    count = jax.tree.leaves(source_states)
    if not count:
        return jnp.zeros(1, jnp.int32)

    def one(own, state):
        return join(source.shared, own).environment_steps(state)

    return jax.vmap(one)(source.own, source_states)


@eqx.filter_jit(donate="all-except-first")
def _chunk(fixed, changing):
    method, source, measure, keys, first, count, pieces, layout = fixed

    def one_seed(shared, state, source_state, sums, key, own):
        method, source, measure, first, count = shared
        return advance(
            method,
            join(source, own[0]),
            join(measure, own[1]),
            (state, source_state, sums),
            key,
            first,
            # Traced: one program serves chunks of every length.
            count,
            pieces,
            lambda data: spread_rows(data, layout),
        )

    shared = (method, source.shared, measure.shared, first, count)
    own = (source.own, measure.own)
    return spread_model(over_seeds(one_seed, shared, (*changing, keys, own), layout), layout)


@eqx.filter_jit(donate="all-except-first")
def _update_each(fixed, changing):
    method, measure, data, keys, pieces, layout = fixed
    state, sums = changing

    def one_seed(shared, state, sums, data, key, own):
        method, measure = shared
        data = spread_rows(data, layout)
        return learn_draw(method, join(measure, own), state, sums, data, key, pieces=pieces)

    each = (state, sums, data, keys, measure.own)
    return spread_model(over_seeds(one_seed, (method, measure.shared), each, layout), layout)


@eqx.filter_jit
def _keys_at(keys, step):
    # `step` must be an array: a Python number would be compiled in, once for every step.
    return jax.vmap(lambda k: tuple(jax.random.split(jax.random.fold_in(k, step))))(keys)


# Advancing --------------------------------------------------------------------------------------


def _advance_compiled(place, state, source_state, sums, first, count, drawer):
    stage = place.stage
    fixed = (
        stage.method,
        place.source,
        place.measure,
        place.spread(place.keys),
        jnp.asarray(first, jnp.uint32),
        jnp.asarray(count, jnp.int32),
        stage.updates_per_draw,
        place.layout,
    )
    return _chunk(fixed, (state, source_state, sums))


def _advance_host(place, state, source_state, sums, first, count, drawer):
    stage = place.stage
    ahead = None
    for i in range(first, first + count):
        draw_keys, update_keys = _keys_at(place.keys, np.uint32(i))
        if ahead is not None:
            source_state, data = ahead.result()
        else:
            agent = Agent(stage.method, state)
            source_state, data = stage.source.draw(source_state, agent, keys=draw_keys)
        if drawer is not None and i + 1 < first + count:
            # Such a source looks at the keys alone, so it may draw while the update computes.
            agent = Agent(stage.method, None)
            following = _keys_at(place.keys, np.uint32(i + 1))[0]
            ahead = drawer.submit(stage.source.draw, source_state, agent, keys=following)
        else:
            ahead = None
        if sums is None:
            shapes = shapes_of_update(
                stage.method, place.measure.first(), *_first((state, data)), stage.updates_per_draw
            )
            sums = _zeros(shapes, len(place.seeds))
        pieces, layout = stage.updates_per_draw, place.layout
        fixed = (stage.method, place.measure, data, update_keys, pieces, layout)
        state, sums = _update_each(fixed, (state, sums))
    return state, source_state, sums


# Metrics ----------------------------------------------------------------------------------------


def _no_metrics(place, state, source_state) -> Any:
    """Zeros in the shape of the metrics."""
    if place.host:
        return None
    stage = place.stage
    source, measure = place.source.first(), place.measure.first()
    state, source_state = _first((state, source_state))
    shapes = shapes_of_metrics(
        stage.method, source, measure, state, source_state, stage.updates_per_draw
    )
    return _zeros(shapes, len(place.seeds))


def _zeros(shapes, seeds):
    return jax.tree.map(lambda s: jnp.zeros((seeds, *s.shape), s.dtype), shapes)


def _first(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree)


class _Pace:
    """How many updates make a chunk of about `_CHUNK_SECONDS`."""

    def __init__(self, unit: int):
        self._unit = unit
        self._chunks = 0
        self.updates = unit * 4
        self.rate = 0.0

    def took(self, updates: int, seconds: float) -> None:
        """Learns from a chunk; the first is left out, since it compiled."""
        self._chunks += 1
        if self._chunks == 1:
            return
        self.rate = updates / max(seconds, 1e-9)
        length = min(self.rate * _CHUNK_SECONDS, self.updates * 8.0)
        self.updates = max(1, int(length) // self._unit) * self._unit


def _interval(updates: int, pieces: int, unit: int) -> int:
    return max(1, math.ceil(updates / max(pieces, 1) / unit)) * unit
