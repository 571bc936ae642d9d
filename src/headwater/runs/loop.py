"""The one loop: draw, update, repeat.

Everything about time, logging, checkpoints, evaluation and progress is here and nowhere else.
Numbers depend only on the stages, the seed and the seeds' indices: the randomness of update `i` is
folded in from `i`, so chunk sizes, checkpoints and interruptions change nothing.
"""

import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from headwater.core.errors import Diverged, RunError, SpecificationError
from headwater.core.fields import check_choice
from headwater.core.method import AbstractMethod, Agent
from headwater.core.source import AbstractHostSource
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.compiled import forget_programs
from headwater.runs.directory import RunDirectory
from headwater.runs.interruption import raise_if_interrupted
from headwater.runs.progress import Progress
from headwater.runs.stage import Outcome, Outcomes, Stage

SeedLayout = Literal["map", "vmap", "devices", "batch"]
"""How seeds lie on the hardware: one after the other, side by side in one batch, spread over all
devices, or (`"batch"`) each update's batch spread over all devices, one seed after the other."""

Evaluate = Callable[[AbstractMethod, Any, PRNGKeyArray], np.ndarray]
"""`(method, states with a leading seed axis, key)` to returns `[seed, episode]`."""

_CHUNK_SECONDS = 0.7
_CHECKPOINT_SECONDS = 60.0
_DIVERGED = 1e12
_MOST_COPIED = 2**31
"""Bytes of data that may be held once for each processor, so that seeds run side by side."""
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Initialising networks draws many small random arrays: compiling that well takes several times as
long as compiling it like this, and longer than the rest of the start."""
_REMEDY = (
    "Look at the scale of the rewards, at actions at their bounds, and at terminal flags; a "
    "smaller learning rate often helps."
)


class Result(NamedTuple):
    """What a run leaves: outcomes with a leading seed axis, and what was logged.

    **Arguments:** `outcomes`: by stage name; `metrics`, `evaluations`: rows as in the run's files.
    """

    outcomes: Outcomes
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def run(
    stages: Sequence[Stage],
    problem: Any,
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
) -> Result:
    """Runs `stages` one after the other, all seeds side by side, and continues what is unfinished.

    **Arguments:** `problem`: what methods are initialised for; `seeds`: how many, or which; `seed`:
    root of all randomness; `directory`: where to log and checkpoint, and to continue from if it
    holds checkpoints; `evaluate`: called before the first and after the last update of a stage and
    `evaluations - 1` times between; `logs`: rows of metrics per stage; `progress`: show a bar;
    `layout`: how seeds lie on the hardware; by default one after the other on one CPU device, in
    one batch on one accelerator, and spread over the devices where there are several;
    `earlier`: outcomes, with a leading seed axis, of stages of another run that these build on;
    `keep`: keep the method's state at every evaluation, under `snapshots/`, and in the last
    checkpoint the source's, with what it collected.

    Raises `Diverged` when a metric is not finite, `RunError` when files cannot be written or read.
    """
    indices = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not indices or not stages or len({s.name for s in stages}) != len(stages):
        raise SpecificationError("a run needs at least one seed, and stages with distinct names")
    if layout is not None:
        check_choice(layout, SeedLayout, "layout")
    forget_programs()
    log = _Log(directory, Progress(progress), keep)
    outcomes: Outcomes = dict(earlier or {})
    if directory is not None:
        directory.lock()
    try:
        start = log.resume()
        for index, stage in enumerate(stages):
            place = _Place(index, stage, problem, indices, seed, layout)
            done = start.update if start is not None and start.stage == index else 0
            if start is not None and (index, stage.updates) <= (start.stage, start.update):
                state = log.load_method(place, stage.updates, outcomes)
            else:
                state = _run_stage(place, done, outcomes, log, evaluate, evaluations, logs)
            outcomes[stage.name] = Outcome(stage.method, state)
    finally:
        log.progress.stop()
        if directory is not None:
            directory.unlock()
    own = {stage.name: outcomes[stage.name] for stage in stages}
    return Result(own, log.metrics, log.evaluations)


class _Place:
    """One stage with everything that its compiled pieces need."""

    def __init__(self, index, stage: Stage, problem, seeds, seed, layout: SeedLayout | None):
        self.index: int = index
        self.problem = problem
        self.seeds: list[int] = seeds
        self.layout: SeedLayout = layout or default_layout(len(seeds), stage.source)
        self.stage: Stage = stage
        if self.layout == "devices":
            # Once for all chunks: what all seeds look at is needed on every device.
            source = _on_every_device(stage.source, len(seeds))
            self.stage = eqx.tree_at(lambda s: s.source, stage, source)
        keys, self.evaluation_key = _place_keys(
            jax.random.key(seed), np.uint32(index), np.asarray(seeds, np.uint32)
        )
        self.init_keys, self.source_keys, self.prepare_keys, self.keys = keys

    def position(self, update: int) -> Position:
        return Position(self.index, self.stage.name, update)

    def where(self, update: int) -> dict[str, Any]:
        return {"stage": self.stage.name, "stage_index": self.index, "update": update}

    @property
    def host(self) -> bool:
        return isinstance(self.stage.source, AbstractHostSource)

    def spread(self, tree: Any) -> Any:
        """`tree`, whose arrays have a leading seed axis, where the compiled pieces want it."""
        if self.layout != "devices":
            return tree
        return jax.device_put(tree, NamedSharding(_devices(len(self.seeds)), PartitionSpec("seed")))

    def gathered(self, tree: Any) -> Any:
        """`tree` on one device, for what does not know of several."""
        return jax.device_put(tree, jax.devices()[0]) if self.layout == "devices" else tree

    def first_state(self, outcomes: Outcomes) -> Any:
        """What the method begins with, for all seeds."""
        function, arguments = self._first(outcomes)
        return _quickly(function)(*arguments)

    def first_shapes(self, outcomes: Outcomes) -> Any:
        """The shapes of what `first_state` returns, without computing it."""
        function, arguments = self._first(outcomes)
        return eqx.filter_eval_shape(lambda: function(*arguments))

    def _first(self, outcomes: Outcomes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        stage, problem = self.stage, self.problem
        if stage.begin is None:
            return _initial_states, (stage.method, problem, self.init_keys)
        return _begun_states, (stage.begin, outcomes, problem, self.init_keys)


def _run_stage(place, done, outcomes, log, evaluate, evaluations, logs):
    stage: Stage = place.stage
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
            source_state = _initial_source(
                source, stage.method, state, place.source_keys, place.prepare_keys, place.layout
            )
    state = place.spread(state)
    if not place.host:
        source_state = place.spread(source_state)
    advance = _advance_host if place.host else _advance_compiled
    drawer = ThreadPoolExecutor(1) if place.host and not source.uses_agent else None
    sums = place.spread(_no_metrics(place, state, source_state))
    healthy = _finite_leaves(state)
    pace = _Pace(unit)
    logged_at, saved_at, unlogged = time.perf_counter(), time.perf_counter(), 0

    def steps() -> int:
        if place.host:
            return int(source.environment_steps(source_state))
        return int(np.max(np.asarray(_environment_steps(source, source_state))))

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
            log.check(place, done, sums, unlogged)
            log.check_state(place, done, state, healthy)
            due = done % evaluate_every == 0 or done == stage.updates
            if due or done % log_every == 0:
                seconds = time.perf_counter() - logged_at
                log.logged(place, done, steps(), sums, unlogged, seconds)
                sums, unlogged = place.spread(jax.tree.map(jnp.zeros_like, sums)), 0
                if due and evaluate is not None:
                    here = place.gathered(state)
                    log.evaluated(place, done, steps(), evaluate, stage.method, here)
                if due or time.perf_counter() - saved_at > _CHECKPOINT_SECONDS:
                    log.save(place, done, state, source_state)
                    saved_at = time.perf_counter()
                logged_at = time.perf_counter()
        if stage.updates == 0:
            log.save(place, 0, state, source_state)
    finally:
        if drawer is not None:
            drawer.shutdown(cancel_futures=True)
        if place.host:
            source.close(source_state)
    return place.gathered(state)


# Compiled pieces --------------------------------------------------------------------------------


def _quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A program that runs once, or is small, compiled without the passes that make it fast."""
    return _compiled_quickly(function, jax.default_backend())


@functools.cache
def _compiled_quickly(function, backend):
    options: dict[str, Any] = {"compiler_options": _QUICK} if backend == "cpu" else {}
    return eqx.filter_jit(function, **options)


def _initial_states(method, problem, keys):
    return jax.vmap(lambda key: method.init(problem, key=key))(keys)


def _begun_states(begin, outcomes, problem, keys):
    methods = {name: outcome.method for name, outcome in outcomes.items()}
    states = {name: outcome.state for name, outcome in outcomes.items()}

    def one(states, key):
        mine = {name: Outcome(methods[name], states[name]) for name in methods}
        return begin(mine, problem, key)

    return jax.vmap(one)(states, keys)


@eqx.filter_jit
def _initial_source(source, method, states, keys, prepare_keys, layout):
    def one(shared, state, key, prepare_key):
        method, source = shared
        begun = source.init(key=key)
        return source.prepare(begun, Agent(method, state), key=prepare_key)

    return _over_seeds(one, (method, source), (states, keys, prepare_keys), layout)


@eqx.filter_jit
def _environment_steps(source, source_states):
    count = jax.tree.leaves(source_states)
    if not count:
        return jnp.zeros(1, jnp.int32)
    return jax.vmap(source.environment_steps)(source_states)


@eqx.filter_jit(donate="all-except-first")
def _chunk(fixed, changing):
    method, source, measure, keys, first, count, pieces, layout = fixed

    def one_seed(shared, state, source_state, sums, key):
        method, source, measure, first, count = shared

        def body(i, carry):
            state, source_state, sums = carry
            draw_key, update_key = jax.random.split(jax.random.fold_in(key, first + i))
            agent = Agent(method, state)
            source_state, data = source.draw(source_state, agent, key=draw_key)
            data = _spread_rows(data, layout)
            state, sums = _update(method, measure, state, sums, data, update_key, pieces)
            return state, source_state, sums

        # The bound is traced: one program serves chunks of every length.
        return jax.lax.fori_loop(0, count, body, (state, source_state, sums))

    shared = (method, source, measure, first, count)
    return _over_seeds(one_seed, shared, (*changing, keys), layout)


@eqx.filter_jit(donate="all-except-first")
def _update_each(fixed, changing):
    method, measure, data, keys, pieces, layout = fixed
    state, sums = changing

    def one_seed(shared, state, sums, data, key):
        method, measure = shared
        data = _spread_rows(data, layout)
        return _update(method, measure, state, sums, data, key, pieces)

    return _over_seeds(one_seed, (method, measure), (state, sums, data, keys), layout)


def _update(method, measure, state, sums, data, key, pieces):
    """One update for each of the equal pieces of `data`; adds the metrics to `sums`."""
    if pieces == 1:
        state, metrics = _measured_update(method, measure, state, data, key)
        return state, jax.tree.map(jnp.add, sums, metrics)
    data = jax.tree.map(lambda x: x.reshape(pieces, x.shape[0] // pieces, *x.shape[1:]), data)

    def one(carry, piece):
        state, sums = carry
        state, metrics = _measured_update(method, measure, state, piece[0], piece[1])
        return (state, jax.tree.map(jnp.add, sums, metrics)), None

    return jax.lax.scan(one, (state, sums), (data, jax.random.split(key, pieces)))[0]


# Compiled by itself, so that it is traced once: for the shapes of its metrics and in the loop.
@eqx.filter_jit
def _measured_update(method, measure, state, data, key):
    measured = {} if measure is None else measure(Agent(method, state))
    state, metrics = method.update(state, data, key=key)
    return state, {**metrics, **measured}


def _over_seeds(function, shared, each, layout):
    """`function(shared, *mine)` for every seed, whose own part of each tree is in `each`."""
    if layout == "vmap":
        return jax.vmap(lambda *mine: function(shared, *mine))(*each)
    if layout != "devices":
        return jax.lax.map(lambda mine: function(shared, *mine), each)
    arrays, rest = eqx.partition(shared, eqx.is_array)

    def some(arrays, each):
        return _over_seeds(function, eqx.combine(arrays, rest), each, _layout_on_one_device())

    seeds = jax.tree.leaves(each)[0].shape[0]
    # Methods and sources know nothing of devices, so their loops cannot declare what differs there.
    spread = jax.shard_map(
        some,
        mesh=_devices(seeds),
        in_specs=(PartitionSpec(), PartitionSpec("seed")),
        out_specs=PartitionSpec("seed"),
        check_vma=False,
    )
    return spread(arrays, each)


def _devices(seeds: int) -> Mesh:
    """As many devices as share `seeds` evenly."""
    found = jax.devices()
    count = max(n for n in range(1, len(found) + 1) if seeds % n == 0)
    return Mesh(np.asarray(found[:count]), ("seed",))


def _spread_rows(data: Any, layout: SeedLayout) -> Any:
    """The rows of a batch over all devices, if that is asked for and they can be shared evenly."""
    if layout != "batch":
        return data
    devices = jax.devices()
    mesh = Mesh(np.asarray(devices), ("row",))

    def spread(leaf):
        if leaf.ndim == 0 or leaf.shape[0] % len(devices):
            return leaf
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec("row")))

    return jax.tree.map(spread, data)


# One program rather than a dozen, which would take longer to find in the cache than this to run.
@jax.jit
def _place_keys(key, index, seeds):
    """Four keys for each seed, `[seed]` each, and the one for evaluations."""
    root = jax.random.fold_in(key, index)
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.fold_in(root, seed), 4))(seeds)
    return [keys[:, i] for i in range(4)], jax.random.fold_in(root, 2**32 - 1)


@eqx.filter_jit
def _keys_at(keys, step):
    # `step` must be an array: a Python number would be compiled in, once for every step.
    return jax.vmap(lambda k: tuple(jax.random.split(jax.random.fold_in(k, step))))(keys)


def default_layout(seeds: int, source: Any = None) -> SeedLayout:
    """How `seeds` seeds that learn from `source` lie on the hardware that there is."""
    devices = _devices(seeds).size
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(source, eqx.is_array)))
    # Every device holds the source's data: on processors, all of them in the same memory.
    crowded = jax.default_backend() == "cpu" and held * devices > _MOST_COPIED
    return _layout_on_one_device() if devices == 1 or crowded else "devices"


def _on_every_device(tree: Any, seeds: int) -> Any:
    everywhere = NamedSharding(_devices(seeds), PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(x, everywhere) if eqx.is_array(x) else x, tree)


def _layout_on_one_device() -> SeedLayout:
    # A batched matrix product over seeds is slower than one after the other on a CPU, whose cores
    # a single product already fills; elsewhere the batch is what fills the device.
    return "map" if jax.default_backend() == "cpu" else "vmap"


# Advancing --------------------------------------------------------------------------------------


def _advance_compiled(place, state, source_state, sums, first, count, drawer):
    stage = place.stage
    fixed = (
        stage.method,
        stage.source,
        stage.measure,
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
            sums = _zeros_like_metrics(stage, *_first((state, data)), len(place.seeds))
        pieces, layout = stage.updates_per_draw, place.layout
        fixed = (stage.method, stage.measure, data, update_keys, pieces, layout)
        state, sums = _update_each(fixed, (state, sums))
    return state, source_state, sums


# Metrics ----------------------------------------------------------------------------------------


@eqx.filter_jit
def _finite_leaves(state):
    """Whether each array of numbers is finite, for each seed."""

    def finite(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.ones(leaf.shape[0], bool)
        return jnp.all(jnp.isfinite(leaf.reshape(leaf.shape[0], -1)), axis=1)

    return jax.tree.map(finite, state)


def _no_metrics(place, state, source_state) -> Any:
    """Zeros in the shape of the metrics, found by tracing one draw and one update."""
    if place.host:
        return None
    stage = place.stage

    def data(state, source_state, key):
        return stage.source.draw(source_state, Agent(stage.method, state), key=key)[1]

    first = _first((state, source_state))
    shapes = eqx.filter_eval_shape(data, *first, place.keys[0])
    return _zeros_like_metrics(stage, first[0], shapes, len(place.seeds))


def _zeros_like_metrics(stage, state, data, seeds):
    def metrics(state, data, key):
        data = jax.tree.map(lambda x: x[: x.shape[0] // stage.updates_per_draw], data)
        return _measured_update(stage.method, stage.measure, state, data, key)[1]

    shapes = eqx.filter_eval_shape(metrics, state, data, jax.random.key(0))
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
        wanted = min(self.rate * _CHUNK_SECONDS, self.updates * 8.0)
        self.updates = max(1, int(wanted) // self._unit) * self._unit


def _interval(updates: int, pieces: int, unit: int) -> int:
    return max(1, math.ceil(updates / max(pieces, 1) / unit)) * unit


class _Log:
    """What a run writes down, in memory and, if there is a directory, in its files."""

    def __init__(self, directory: RunDirectory | None, progress: Progress, keep: bool):
        self.directory = directory
        self.progress = progress
        self.keep = keep
        self.metrics: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []

    def resume(self) -> Position | None:
        """The newest checkpoint that can be read; logs are cut back to it."""
        if self.directory is None:
            return None
        newest = None
        for position in reversed(checkpoint.find(self.directory.checkpoints)):
            path = checkpoint.path_of(self.directory.checkpoints, position)
            try:
                checkpoint.read(path)
            except RunError as error:
                print(f"{error}; going back to the one before", file=sys.stderr)
                path.unlink(missing_ok=True)
                continue
            newest = position
            break
        self.directory.rewind(newest or Position(0, "", -1))
        self.metrics = self.directory.rows("metrics")
        self.evaluations = self.directory.rows("evaluations")
        return newest

    def load_method(self, place: _Place, update: int, outcomes: Outcomes) -> Any:
        """The method's state at a checkpoint."""
        return self._read(place, update, outcomes)[0]

    def load(self, place: _Place, update: int, outcomes: Outcomes) -> tuple[Any, Any]:
        """The method's and the source's state at a checkpoint."""
        state, parts, where = self._read(place, update, outcomes)
        source, method = place.stage.source, place.stage.method
        if "source" not in parts:
            raise RunError(f"{where}: it does not say how far the data were drawn")
        if isinstance(source, AbstractHostSource):
            return state, source.load(parts["source"], keys=place.source_keys)
        template = eqx.filter_eval_shape(
            _initial_source, source, method, state, place.source_keys, place.prepare_keys, "vmap"
        )
        return state, checkpoint.restore(template, parts["source"], where)

    def save(self, place: _Place, update: int, state: Any, source_state: Any) -> None:
        """Writes a checkpoint; a finished stage needs no source any more, unless it is kept."""
        if self.directory is None:
            return
        parts = {"method": checkpoint.flatten(state)}
        if update < place.stage.updates or self.keep:
            source = place.stage.source
            if isinstance(source, AbstractHostSource):
                parts["source"] = source.save(source_state)
            else:
                parts["source"] = checkpoint.flatten(source_state)
        checkpoint.save(self.directory.checkpoints, place.position(update), parts)

    def check(self, place: _Place, update: int, sums: Any, count: int) -> None:
        """Raises `Diverged` if a metric is not finite or out of all proportion."""
        for name, values in sums.items():
            mean = np.asarray(values) / max(count, 1)
            wrong = ~np.isfinite(mean) | (np.abs(mean) > _DIVERGED)
            if np.any(wrong):
                raise self._diverged(place, update, f"{name} = {mean[wrong][0]:.3g}", wrong)

    def check_state(self, place: _Place, update: int, state: Any, healthy: Any) -> None:
        """Raises `Diverged` if an array of the state that was finite is so no longer.

        What a method keeps infinite from the beginning, such as bounds not yet known, may stay so.
        """
        lost = jax.tree.map(
            lambda before, now: np.asarray(before & ~now), healthy, _finite_leaves(state)
        )
        for path, wrong in jax.tree_util.tree_leaves_with_path(lost):
            if np.any(wrong):
                learned = jax.tree_util.keystr(path).lstrip(".")
                what = f"what it learned ({learned}) is not finite any more"
                raise self._diverged(place, update, what, wrong)

    def _diverged(self, place: _Place, update: int, what: str, wrong: np.ndarray) -> Diverged:
        seeds = ", ".join(str(s) for s, bad in zip(place.seeds, wrong) if bad)
        return Diverged(
            f"stage '{place.stage.name}' diverged by update {update}: {what} for seed {seeds}. "
            f"{self._last_good()} {_REMEDY}"
        )

    def logged(self, place: _Place, update, steps, sums, count, seconds) -> None:
        """Adds a row of metrics, each the mean over the updates since the last row."""
        row = {
            **place.where(update),
            "environment_steps": steps,
            "updates_per_second": round(count / max(seconds, 1e-9), 2),
            "metrics": {
                name: (np.asarray(values, np.float64) / count).tolist()
                for name, values in sums.items()
            },
        }
        self.metrics.append(row)
        if self.directory is not None:
            self.directory.append("metrics", [row])

    def evaluated(self, place: _Place, update, steps, evaluate: Evaluate, method, state) -> None:
        """Evaluates and adds one row of raw returns per seed."""
        key = jax.random.fold_in(place.evaluation_key, update)
        returns = np.asarray(evaluate(method, state, key), np.float64)
        if not np.isfinite(returns).all():
            raise Diverged(
                f"stage '{place.stage.name}': an evaluation at update {update} gave a return that "
                f"is not finite. {self._last_good()} {_REMEDY}"
            )
        rows = [
            {
                **place.where(update),
                "environment_steps": steps,
                "seed": s,
                "returns": [round(float(x), 6) for x in each],
            }
            for s, each in zip(place.seeds, returns)
        ]
        self.evaluations.extend(rows)
        if self.directory is not None:
            self.directory.append("evaluations", rows)
            if self.keep:
                parts = {"method": checkpoint.flatten(state)}
                checkpoint.save(self.directory.snapshots, place.position(update), parts, kept=None)
        self.progress.note(f"{place.stage.name} {update:,}: mean return {returns.mean():,.1f}")

    def _read(self, place: _Place, update: int, outcomes: Outcomes):
        assert self.directory is not None
        path = checkpoint.path_of(self.directory.checkpoints, place.position(update))
        parts = checkpoint.read(path)
        template = place.first_shapes(outcomes)
        return checkpoint.restore(template, parts["method"], str(path)), parts, str(path)

    def _last_good(self) -> str:
        if self.directory is None:
            return "Nothing was saved, since the run has no directory."
        found = checkpoint.find(self.directory.checkpoints)
        if not found:
            return "There is no checkpoint before that."
        path = checkpoint.path_of(self.directory.checkpoints, found[-1])
        return f"The last good checkpoint is {path}."
