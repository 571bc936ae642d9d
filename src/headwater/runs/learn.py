"""Learning as a pure function: draw, update and add up, in one compiled loop.

`run` is the host shell around the same steps. Here nothing is logged or saved, so the whole can be
mapped over keys, problems, sources and the numbers of methods, and differentiated.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, Agent
from headwater.core.source import AbstractHostSource, AbstractSource
from headwater.runs.stage import Measure


class Learned(eqx.Module):
    """What `learn` leaves. Under `vmap` every array has the mapped axes in front.

    **Arguments:** `state`, `source_state`: at the end; `sums`: by name, what each metric and each
    thing measured added up to over the updates of a row, `[row …]`; `evaluations`: what `evaluate`
    returned at first and after each row, `[row + 1 …]`, or `None`; `every`: updates of a row.
    """

    state: Any
    source_state: Any
    sums: dict[str, Shaped[Array, "..."]]
    evaluations: Any
    every: int = eqx.field(static=True)

    @property
    def means(self) -> dict[str, Shaped[Array, "..."]]:
        """The mean over the updates of each row: what a run logs."""
        return {name: value / self.every for name, value in self.sums.items()}

    def cumulative(self, name: str) -> Shaped[Array, "... row"]:
        """What the scalar `name` (regret, say) has added up to by the end of each row.

        Raises `SpecificationError` if there is nothing of this name.
        """
        if name not in self.sums:
            known = ", ".join(sorted(self.sums)) or "nothing"
            raise SpecificationError(f"no {name} was measured (there is {known})")
        return jnp.cumsum(self.sums[name], axis=-1)


def learn(
    method: AbstractMethod,
    problem: Any,
    source: AbstractSource | AbstractHostSource,
    updates: int,
    *,
    measure: Measure | None = None,
    evaluate: Callable[[Agent], Any] | None = None,
    every: int | None = None,
    updates_per_draw: int = 1,
    state: Any = None,
    key: Array,
) -> Learned:
    """Initialises `method`, then draws from `source` and updates, `updates` times.

    Nothing here is compiled by itself: put it, and what maps it, into `jax.jit` or
    `equinox.filter_jit`.

    **Arguments:** `problem`: what the method is initialised for; `measure`: what else to add up,
    from the agent before each update and the data of that update; `evaluate`: what to compute of
    the agent before the first update and after each row; `every`: updates of a row (default: all,
    one row); `updates_per_draw`: as in `Stage`; `state`: begin from it and not from `method.init`;
    `key`: of type key. With `seed_key` the numbers are those of `run`.

    Raises `SpecificationError` if the source runs on the host, if `updates` is no multiple of
    `every`, or `every` none of `updates_per_draw`.
    """
    if isinstance(source, AbstractHostSource):
        raise SpecificationError(
            f"{type(source).__name__} draws on the host, but `learn` is compiled whole: use `run`"
        )
    every = max(updates, updates_per_draw) if every is None else every
    if updates < 0 or every < 1 or updates % every or every % updates_per_draw:
        raise SpecificationError(
            f"updates={updates} must be a multiple of every={every}, and that of "
            f"updates_per_draw={updates_per_draw}"
        )
    init_key, source_key, prepare_key, draws_key = jax.random.split(key, 4)
    if state is None:
        state = method.init(problem, key=init_key)
    source_state = source.init(key=source_key)
    source_state = source.prepare(source_state, Agent(method, state), key=prepare_key)
    zeros = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, shape.dtype),
        shapes_of_metrics(method, source, measure, state, source_state, updates_per_draw),
    )
    draws = every // updates_per_draw

    def look(state):
        return None if evaluate is None else evaluate(Agent(method, state))

    def row(carry, first):
        *carry, sums = advance(
            method, source, measure, (*carry, zeros), draws_key, first, draws, updates_per_draw
        )
        return tuple(carry), (sums, look(carry[0]))

    first_look = look(state)
    firsts = draws * jnp.arange(updates // every, dtype=jnp.uint32)
    (state, source_state), (sums, looks) = jax.lax.scan(row, (state, source_state), firsts)
    looks = jax.tree.map(lambda x, rest: jnp.concatenate([x[None], rest]), first_look, looks)
    return Learned(state, source_state, sums, looks, every)


def seed_key(seed: int, index: Any, stage: int = 0) -> Array:
    """The key with which `learn` computes what `run` computes.

    **Arguments:** `seed`: the root of all randomness; `index`: of the seed, among those of the run;
    `stage`: index of the stage.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stage), index)


# The steps that `learn` and `run` share ---------------------------------------------------------


def advance(
    method: AbstractMethod,
    source: AbstractSource,
    measure: Measure | None,
    carry: tuple[Any, Any, Any],
    key: Array,
    first: Any,
    count: Any,
    pieces: int,
    spread: Callable[[Any], Any] = lambda data: data,
) -> tuple[Any, Any, Any]:
    """`count` draws from number `first` on, with one update for each of the `pieces` of a draw.

    **Arguments:** `carry`: the state, the source's and the sums of metrics so far; `key`: of the
    seed: what is random about a draw is folded in from its number; `spread`: lays drawn data out on
    the hardware.
    """

    def body(i, carry):
        state, source_state, sums = carry
        draw_key, update_key = jax.random.split(jax.random.fold_in(key, first + i))
        agent = Agent(method, state)
        source_state, data = source.draw(source_state, agent, key=draw_key)
        state, sums = learn_draw(
            method, measure, state, sums, spread(data), update_key, pieces=pieces
        )
        return state, source_state, sums

    return jax.lax.fori_loop(0, count, body, carry)


def learn_draw(
    method: AbstractMethod,
    measure: Measure | None,
    state: Any,
    sums: Any,
    data: Any,
    key: Array,
    *,
    pieces: int,
) -> tuple[Any, Any]:
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


def shapes_of_metrics(
    method: AbstractMethod,
    source: AbstractSource,
    measure: Measure | None,
    state: Any,
    source_state: Any,
    pieces: int,
) -> Any:
    """Shapes of the metrics of one update, found by tracing one draw and one update.

    **Arguments:** as for `advance`; of the states, shapes are enough.
    """

    def draw(state, source_state, key):
        return source.draw(source_state, Agent(method, state), key=key)[1]

    data = eqx.filter_eval_shape(draw, state, source_state, jax.random.key(0))
    return shapes_of_update(method, measure, state, data, pieces)


def shapes_of_update(
    method: AbstractMethod, measure: Measure | None, state: Any, data: Any, pieces: int
) -> Any:
    """Shapes of the metrics of one update with one of the `pieces` of `data`."""

    def metrics(state, data, key):
        data = jax.tree.map(lambda x: x[: x.shape[0] // pieces], data) if pieces > 1 else data
        return _measured_update(method, measure, state, data, key)[1]

    return eqx.filter_eval_shape(metrics, state, data, jax.random.key(0))


# Compiled by itself, so that it is traced once: for the shapes of its metrics and in the loop.
@eqx.filter_jit
def _measured_update(method, measure, state, data, key):
    measured = {} if measure is None else measure(Agent(method, state), data)
    state, metrics = method.update(state, data, key=key)
    return state, {**metrics, **measured}
