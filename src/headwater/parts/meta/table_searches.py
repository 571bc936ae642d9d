"""Searches in tables of earlier tasks, and what a network that searches learns from them."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.records import TaskQueries
from headwater.networks.attention import NEVER
from headwater.networks.meta.acquisition_process import (
    AcquisitionProcess,
    History,
    bucket_of,
    history_of,
)
from headwater.ops.control.advantages import generalised_advantages


@runtime_checkable
class SearchSettings(Protocol):
    """The hyper-parameters that these functions read from a method."""

    @property
    def budget(self) -> int: ...
    @property
    def discount(self) -> float: ...
    @property
    def gae_lambda(self) -> float: ...
    @property
    def clip_range(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def smallest_regret(self) -> float: ...
    @property
    def episodes_per_update(self) -> int: ...
    @property
    def contexts_per_episode(self) -> int: ...
    @property
    def num_candidates(self) -> int: ...


class Units(NamedTuple):
    """Mean and standard deviation of values, which are counted from there."""

    shift: Float[Array, ""]
    scale: Float[Array, ""]


class Searches(NamedTuple):
    """One search in each of several tables.

    **Arguments:** `pool`, `target`: points and standardised values that there were to choose from,
    of which the first are `known`; `action`: which was evaluated in each step; `log_probability`,
    `advantage`, `returns`: of that.
    """

    pool: Float[Array, "episode candidate component"]
    target: Float[Array, "episode candidate"]
    known: Bool[Array, "episode candidate"]
    action: Int[Array, "episode step"]
    log_probability: Float[Array, "episode step"]
    advantage: Float[Array, "episode step"]
    returns: Float[Array, "episode step"]


def units_of(data: TaskQueries) -> Units:
    """Those of all values of earlier tasks; values that are all alike have a deviation of 1."""
    count = jnp.maximum(jnp.sum(data.known), 1)
    mean = jnp.sum(jnp.where(data.known, data.value, 0.0)) / count
    square = jnp.sum(jnp.where(data.known, (data.value - mean) ** 2, 0.0)) / count
    deviation = jnp.sqrt(square)
    return Units(mean, jnp.where(deviation > 0.0, deviation, 1.0))


def searched(
    settings: SearchSettings,
    network: AcquisitionProcess,
    units: Units,
    data: TaskQueries,
    *,
    key: PRNGKeyArray,
) -> tuple[Searches, Float[Array, " episode"]]:
    """Searches in tasks that are drawn, and the regret at their end as a share of a task's range.

    Raises `SpecificationError` if no table has as many rows as a search evaluates.
    """
    draw_key, search_key = jax.random.split(key)
    size = min(settings.num_candidates, data.value.shape[1])
    if size < settings.budget:
        raise SpecificationError(
            f"a search of {settings.budget} evaluations needs tables with at least as many rows, "
            f"of which {size} are looked at: lower budget, raise num_candidates or give more rows"
        )
    pool, value, known, low, high = _pools(settings.episodes_per_update, size, data, key=draw_key)
    target = (value - units.shift) / units.scale
    steps = jnp.arange(settings.budget)

    def step(carry, now):
        left, action = carry
        step, luck = now
        history = after(settings, pool, target, action, step)
        log_all = choices(settings, network(history, pool)[1], left)
        chosen = jnp.argmax(log_all + luck, axis=1).astype(jnp.int32)
        log_probability = jnp.take_along_axis(log_all, chosen[:, None], axis=1)[:, 0]
        left = left & ~jax.nn.one_hot(chosen, size, dtype=bool)
        worth = network.worth(history)
        return (left, action.at[:, step].set(chosen)), (log_probability, worth)

    none = jnp.zeros((len(value), settings.budget), jnp.int32)
    # The largest of log-probabilities with such noise is drawn with these probabilities.
    luck = jax.random.gumbel(search_key, (settings.budget, *value.shape))
    (_, action), (log_probability, worth) = jax.lax.scan(step, (known, none), (steps, luck))
    best = jax.lax.cummax(jnp.take_along_axis(value, action, axis=1), axis=1)
    spread = jnp.where(high > low, high - low, 1.0)
    regret = jnp.clip((high - best) / spread, 0.0, 1.0)
    reward = -jnp.log10(jnp.maximum(regret, settings.smallest_regret)).T
    later = jnp.concatenate([worth[1:], jnp.zeros_like(worth[:1])])
    advantage = generalised_advantages(
        reward + settings.discount * later - worth,
        jnp.broadcast_to((steps < settings.budget - 1)[:, None], reward.shape),
        settings.discount * settings.gae_lambda,
    )
    moved = (x.T for x in (log_probability, advantage, advantage + worth))
    return Searches(pool, target, known, action, *moved), regret[:, -1]


def _pools(episodes: int, size: int, data: TaskQueries, *, key: PRNGKeyArray):
    """Of drawn tasks some rows, those that there are first, and the ends of all their values."""
    task_key, row_key = jax.random.split(key)
    share = jax.random.uniform(task_key, (episodes,))
    task = (share * len(data.value)).astype(jnp.int32)
    point, value, known = data.point[task], data.value[task], data.known[task]
    low, high = (
        end(jnp.where(known, value, sign * jnp.inf), axis=1, keepdims=True)
        for end, sign in ((jnp.min, 1.0), (jnp.max, -1.0))
    )
    rows = jnp.broadcast_to(jnp.arange(value.shape[1]), value.shape)
    if size < value.shape[1]:  # To compile a sort is slow.
        lot = jnp.where(known, jax.random.uniform(row_key, value.shape), -1.0)
        rows = jax.lax.top_k(lot, size)[1]
    # Where a table has fewer, they are repeated, so that whatever is looked at is there.
    count = jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1)
    rows = jnp.take_along_axis(rows, jnp.arange(size)[None] % count, axis=1)
    known = jnp.arange(size)[None] < count
    value = jnp.take_along_axis(value, rows, axis=1)
    return jnp.take_along_axis(point, rows[..., None], axis=1), value, known, low, high


def choices(
    settings: SearchSettings, worth: Float[Array, "*batch candidate"], left: Array
) -> Float[Array, "*batch candidate"]:
    """Log-probabilities of evaluating each candidate that is left."""
    return jax.nn.log_softmax(jnp.where(left, worth / settings.temperature, NEVER))


def after(settings: SearchSettings, pool: Array, target: Array, action: Array, count) -> History:
    """What is known after the first `count` of the actions."""
    step = jnp.broadcast_to(jnp.arange(action.shape[-1]), action.shape)
    known = step < jnp.broadcast_to(jnp.asarray(count), action.shape[:-1])[..., None]
    value = jnp.take_along_axis(target, action, axis=-1)
    point = jnp.take_along_axis(pool, action[..., None], axis=-2)
    return history_of(point, value, known, settings.budget)


class Losses(NamedTuple):
    """Minus the clipped advantage of what was evaluated, the squared error of the value, and minus
    the log-probability of the values of all points after some that were drawn."""

    policy: Float[Array, ""]
    value: Float[Array, ""]
    likelihood: Float[Array, ""]


def losses_of(
    settings: SearchSettings, network: AcquisitionProcess, searches: Searches, *, key: PRNGKeyArray
) -> Losses:
    """The losses of some searches. The network is called once for all of them."""
    steps, lots = settings.budget, settings.contexts_per_episode
    pool, target, known, action = (
        jnp.broadcast_to(x[:, None], (x.shape[0], steps + lots, *x.shape[1:]))
        for x in (searches.pool, searches.target, searches.known, searches.action)
    )
    row_key, size_key = jax.random.split(key)
    shape = (len(target), lots, steps)
    count = jnp.sum(known[:, :lots], axis=-1, keepdims=True)
    drawn = (jax.random.uniform(row_key, shape) * count).astype(jnp.int32)
    # From 1 to one less than in a whole search.
    share = jax.random.uniform(size_key, shape[:2])
    sizes = 1 + (share * max(steps - 1, 1)).astype(jnp.int32)
    rows = jnp.concatenate([action[:, :steps], drawn], axis=1)
    own_sizes = jnp.broadcast_to(jnp.arange(steps), (len(target), steps))
    history = after(settings, pool, target, rows, jnp.concatenate([own_sizes, sizes], axis=1))
    logits, worth = network(history, pool)
    policy_loss = _clipped(settings, worth[:, :steps], searches)
    value = network.worth(history)[:, :steps]
    densities = jax.nn.log_softmax(logits[:, steps:])
    bucket = bucket_of(target[:, steps:], logits.shape[-1])
    told = jnp.take_along_axis(densities, bucket[..., None], axis=-1)[..., 0]
    there = known[:, steps:]
    likelihood = -jnp.sum(jnp.where(there, told, 0.0)) / jnp.sum(there)
    return Losses(policy_loss, jnp.mean((value - searches.returns) ** 2), likelihood)


def _clipped(settings: SearchSettings, worth: Array, searches: Searches) -> Float[Array, ""]:
    evaluated = jax.nn.one_hot(searches.action, worth.shape[-1], dtype=jnp.int32)
    left = searches.known[:, None] & (jnp.cumsum(evaluated, axis=1) - evaluated == 0)
    log_all = choices(settings, worth, left)
    own = jnp.take_along_axis(log_all, searches.action[..., None], axis=-1)[..., 0]
    ratio = jnp.exp(own - searches.log_probability)
    bounded = jnp.clip(ratio, 1.0 - settings.clip_range, 1.0 + settings.clip_range)
    advantage = searches.advantage - jnp.mean(searches.advantage)
    advantage = advantage / (jnp.std(advantage) + 1e-6)
    return -jnp.mean(jnp.minimum(ratio * advantage, bounded * advantage))
