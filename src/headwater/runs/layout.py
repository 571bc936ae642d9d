"""How the seeds of a run lie on the hardware, and what each of them has of its own."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractTablePolicy, Agent
from headwater.core.source import AbstractHostSource
from headwater.runs.checkpoint import Position
from headwater.runs.options import Parallel
from headwater.runs.stage import Outcome, Outcomes, Stage

SeedLayout = Literal["map", "vmap", "devices", "batch", "model"]
"""How seeds lie on the hardware: one after the other, side by side in one batch, spread over all
devices, or one after the other with the rows of each update's batch (`"batch"`) or the arrays of
the learner's state (`"model"`) spread over all devices."""

_SMALL_ARRAY = 2**10
"""Numbers of one seed up to which an array is not cut: to send its parts would take longer."""

_MOST_COPIED = 2**31
"""Bytes of data that may be held once for each processor, so that seeds run side by side."""
_SMALL_TABLES = 2**16
"""Bytes of the tables of one seed up to which a processor takes all seeds side by side: what a step
of so small a program costs is to be called at all, and that is then paid once for all seeds."""
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Initialising networks draws many small random arrays: compiling that well takes several times as
long as compiling it like this, and longer than the rest of the start."""


# What seeds have of their own --------------------------------------------------------------------


class PerSeed(NamedTuple):
    """Something that all seeds share, or that each of them has of its own.

    **Arguments:** `shared`: what is the same for all; `own`: `None`, or the arrays that differ,
    with a leading seed axis, in a tree like `shared`, which is empty there.
    """

    shared: Any
    own: Any = None

    def first(self) -> Any:
        """What the first seed has."""
        return join(self.shared, jax.tree.map(lambda x: x[0], self.own))


def join(shared: Any, own: Any) -> Any:
    """What one seed has, from what is shared and its own part of a `PerSeed`."""
    return shared if own is None else eqx.combine(shared, own)


def per_seed(given: Any, seeds: int, what: str) -> PerSeed:
    """One thing for all seeds or, as a list or tuple, one for each of them.

    **Arguments:** `what`: what it is, in the plural, for messages.

    Raises `SpecificationError` if there are not as many as seeds, or if they differ in more than
    the numbers in their arrays.
    """
    if type(given) not in (list, tuple):
        return PerSeed(given)
    if len(given) != seeds:
        raise SpecificationError(
            f"{len(given)} {what} were given for {seeds} seed{'s' * (seeds != 1)}: give one for "
            "all seeds, or one for each"
        )
    parts = [eqx.partition(jax.tree.map(_as_array, one), _is_array) for one in given]
    first, shared = parts[0]
    for number, (arrays, rest) in enumerate(parts):
        difference = _difference(first, arrays)
        if not difference and not eqx.tree_equal(shared, rest):
            difference = "what is fixed when a program is compiled differs"
        if difference:
            raise SpecificationError(
                f"{what} 0 and {number} of a run cannot be stacked ({difference}): they must be "
                "alike in everything but the numbers in their arrays"
            )
    return PerSeed(shared, jax.tree.map(lambda *each: jnp.stack(each), *(a for a, _ in parts)))


def check_each(stage: Stage, problems: Any, seeds: int) -> tuple[PerSeed, PerSeed, PerSeed]:
    """The problem, source and measure of a stage, each for all seeds or one for each.

    Raises `SpecificationError` as `per_seed` does, or if there are several sources on the host.
    """
    if isinstance(stage.source, (list, tuple)):
        for one in stage.source:
            if isinstance(one, AbstractHostSource):
                raise SpecificationError(
                    f"stage '{stage.name}': {type(one).__name__} runs on the host and serves all "
                    "seeds at once, so give one and not a list"
                )
    source = per_seed(stage.source, seeds, f"sources of stage '{stage.name}'")
    measure = per_seed(stage.measure, seeds, f"measures of stage '{stage.name}'")
    return per_seed(problems, seeds, "problems"), source, measure


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))


def _as_array(leaf: Any) -> Any:
    # A number of Python's would have to be the same for all.
    return jnp.asarray(leaf, jnp.float32) if isinstance(leaf, float) else leaf


def _difference(one: Any, other: Any) -> str:
    """How the arrays of two trees differ, apart from their numbers; empty if they do not."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return "their sizes or parts differ"
    pairs = zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True)
    for (path, x), y in pairs:
        if x.shape != y.shape or x.dtype != y.dtype:
            name = jax.tree_util.keystr(path).lstrip(".")
            return f"'{name}' is {x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)}"
    return ""


# Seeds over the hardware -------------------------------------------------------------------------


def default_layout(seeds: int, source: Any = None, state: Any = None) -> SeedLayout:
    """How `seeds` seeds that learn from `source` lie on the hardware that there is.

    **Arguments:** `state`: shapes of the state of one seed of a table method, if it is one.
    """
    if state is not None and seeds > 1 and jax.default_backend() == "cpu":
        held = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
        if held <= _SMALL_TABLES:
            return "vmap"
    devices = _devices(seeds).size
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(source, eqx.is_array)))
    # Every device holds the source's data: on processors, all of them in the same memory.
    crowded = jax.default_backend() == "cpu" and held * devices > _MOST_COPIED
    return _layout_on_one_device() if devices == 1 or crowded else "devices"


def over_seeds(function: Callable[..., Any], shared: Any, each: Any, layout: SeedLayout) -> Any:
    """`function(shared, *mine)` for every seed, whose own part of each tree is in `each`."""
    if layout == "vmap":
        return jax.vmap(lambda *mine: function(shared, *mine))(*each)
    if layout != "devices":
        return jax.lax.map(lambda mine: function(shared, *mine), each)
    arrays, rest = eqx.partition(shared, eqx.is_array)

    def some(arrays, each):
        return over_seeds(function, eqx.combine(arrays, rest), each, _layout_on_one_device())

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


def spread_rows(data: Any, layout: SeedLayout) -> Any:
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


def spread_model(tree: Any, layout: SeedLayout) -> Any:
    """`tree`, whose arrays have a leading seed axis, with large arrays cut over all devices if that
    is asked for: inside a compiled program, which would else choose by itself."""
    if layout != "model":
        return tree
    mesh = _all_devices()
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _cut(x, mesh)), tree)


def _devices(seeds: int) -> Mesh:
    """As many devices as share `seeds` evenly."""
    found = jax.devices()
    count = max(n for n in range(1, len(found) + 1) if seeds % n == 0)
    return Mesh(np.asarray(found[:count]), ("seed",))


def layout_of(parallel: Parallel) -> SeedLayout | None:
    """The layout that spreads what is asked for; `None` leaves it to `default_layout`.

    Raises `SpecificationError` if there is only one device to spread a batch or a model over.
    """
    if parallel == "seeds":
        return None
    if len(jax.devices()) < 2:
        raise SpecificationError(
            f"parallel = {parallel} spreads over several devices, but JAX sees only one: leave it "
            "out, or let JAX see more (on processors JAX_NUM_CPU_DEVICES says how many)"
        )
    return parallel


def _all_devices() -> Mesh:
    return Mesh(np.asarray(jax.devices()), ("part",))


def _cut(leaf: Any, mesh: Mesh) -> NamedSharding:
    """How an array with a leading seed axis is cut: along its longest axis that devices share."""
    axes = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] % mesh.size == 0]
    if not axes or math.prod(leaf.shape[1:]) <= _SMALL_ARRAY:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "part"))


def _on_every_device(tree: Any, mesh: Mesh) -> Any:
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(x, everywhere) if eqx.is_array(x) else x, tree)


def _layout_on_one_device() -> SeedLayout:
    # A batched matrix product over seeds is slower than one after the other on a CPU, whose cores
    # a single product already fills; elsewhere the batch is what fills the device.
    return "map" if jax.default_backend() == "cpu" else "vmap"


# A stage in its place ----------------------------------------------------------------------------


class Place:
    """One stage of a run, with its seeds, their keys and what each of them has of its own."""

    def __init__(
        self,
        index: int,
        stage: Stage,
        problems: Any,
        seeds: Sequence[int],
        seed: int,
        layout: SeedLayout | None,
    ):
        self.index = index
        self.stage = stage
        self.seeds = list(seeds)
        self.host = isinstance(stage.source, AbstractHostSource)
        self.problem, source, measure = check_each(stage, problems, len(seeds))
        self.layout: SeedLayout = layout or default_layout(
            len(seeds), source.shared, self._tables()
        )
        if self.layout in ("devices", "model"):
            # Once for all chunks: what all seeds look at is needed on every device.
            mesh = _devices(len(seeds)) if self.layout == "devices" else _all_devices()
            source = source._replace(shared=_on_every_device(source.shared, mesh))
        self.source = source._replace(own=self.spread(source.own))
        self.measure = measure._replace(own=self.spread(measure.own))
        keys, self.evaluation_key = _place_keys(
            jax.random.key(seed), np.uint32(index), np.asarray(seeds, np.uint32)
        )
        self.init_keys, self.source_keys, self.prepare_keys, self.keys = keys

    def _tables(self) -> Any:
        """Shapes of the state of one seed, if the method has tables and begins with `init`."""
        method, problem = self.stage.method, self.problem.first()
        if not isinstance(method, AbstractTablePolicy) or self.stage.begin is not None:
            return None
        return eqx.filter_eval_shape(lambda key: method.init(problem, key=key), jax.random.key(0))

    def position(self, update: int) -> Position:
        """Where in the run an update of this stage is."""
        return Position(self.index, self.stage.name, update)

    def where(self, update: int) -> dict[str, Any]:
        """The same for a row of a log."""
        return {"stage": self.stage.name, "stage_index": self.index, "update": update}

    def spread(self, tree: Any) -> Any:
        """`tree`, whose arrays have a leading seed axis, where the compiled pieces want it."""
        if self.layout == "model":
            mesh = _all_devices()
            return jax.tree.map(lambda x: jax.device_put(x, _cut(x, mesh)), tree)
        if self.layout != "devices":
            return tree
        return jax.device_put(tree, NamedSharding(_devices(len(self.seeds)), PartitionSpec("seed")))

    def gathered(self, tree: Any) -> Any:
        """`tree` on one device, for what does not know of several.

        A model that is spread stays so, as it may be too large for one.
        """
        return jax.device_put(tree, jax.devices()[0]) if self.layout == "devices" else tree

    def first_state(self, outcomes: Outcomes) -> Any:
        """What the method begins with, for all seeds."""
        function, arguments = self._first(outcomes)
        return _quickly(function)(*arguments)

    def first_shapes(self, outcomes: Outcomes) -> Any:
        """The shapes of what `first_state` returns, without computing it."""
        function, arguments = self._first(outcomes)
        return eqx.filter_eval_shape(lambda: function(*arguments))

    def first_source(self, state: Any) -> Any:
        """What a pure source begins with, for all seeds."""
        return _initial_source(self._source(state), self.layout)

    def source_shapes(self, state: Any) -> Any:
        """The shapes of what `first_source` returns, without computing it."""
        return eqx.filter_eval_shape(_initial_source, self._source(state), "vmap")

    def _first(self, outcomes: Outcomes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.stage.begin is None:
            return _initial_states, (self.stage.method, self.problem, self.init_keys)
        return _begun_states, (self.stage.begin, outcomes, self.problem, self.init_keys)

    def _source(self, state: Any) -> tuple[Any, ...]:
        return self.source, self.stage.method, state, self.source_keys, self.prepare_keys


def _quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A program that runs once, or is small, compiled without the passes that make it fast."""
    return _compiled_quickly(function, jax.default_backend())


@functools.cache
def _compiled_quickly(function, backend):
    options: dict[str, Any] = {"compiler_options": _QUICK} if backend == "cpu" else {}
    return eqx.filter_jit(function, **options)


def _initial_states(method, problem, keys):
    def one(own, key):
        return method.init(join(problem.shared, own), key=key)

    return jax.vmap(one)(problem.own, keys)


def _begun_states(begin, outcomes, problem, keys):
    methods = {name: outcome.method for name, outcome in outcomes.items()}
    states = {name: outcome.state for name, outcome in outcomes.items()}

    def one(states, own, key):
        mine = {name: Outcome(methods[name], states[name]) for name in methods}
        return begin(mine, join(problem.shared, own), key)

    return jax.vmap(one)(states, problem.own, keys)


@eqx.filter_jit
def _initial_source(given, layout):
    source, method, states, keys, prepare_keys = given

    def one(shared, state, own, key, prepare_key):
        method, source = shared
        source = join(source, own)
        begun = source.init(key=key)
        return source.prepare(begun, Agent(method, state), key=prepare_key)

    each = (states, source.own, keys, prepare_keys)
    return over_seeds(one, (method, source.shared), each, layout)


# One program rather than a dozen, which would take longer to find in the cache than this to run.
@jax.jit
def _place_keys(key, index, seeds):
    """Four keys for each seed, `[seed]` each, and the one for evaluations."""
    root = jax.random.fold_in(key, index)
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.fold_in(root, seed), 4))(seeds)
    return [keys[:, i] for i in range(4)], jax.random.fold_in(root, 2**32 - 1)
