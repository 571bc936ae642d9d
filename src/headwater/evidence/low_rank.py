"""Learning the features of low-rank tasks, measured after every update."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractMethod
from headwater.environments.linear.low_rank import (
    LowRankTasks,
    block_processes,
    latent_lock,
    rich_combination_locks,
)
from headwater.evaluation.exact import best_return, returns_of
from headwater.evaluation.model_error import worst_model_error
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes


class Curves(NamedTuple):
    """What is measured before the first update and after each one, mean over tasks.

    **Arguments:** `value`: shares of the best return; `error`: worst model errors; `feature`: what
    was learned in the end.
    """

    value: Float[np.ndarray, "run position"]
    error: Float[np.ndarray, "run position"]
    feature: Float[Array, "run horizon state action rank"]


def make_tasks(
    *, family: str, tasks: int, states: int, actions: int, horizon: int, rank: int, seed: int
) -> LowRankTasks:
    """Tasks of a family: `lock`, `unshared` (the same without anything in common), `blocks` (with
    as many blocks as `rank` has pairs of block and action) or `rich` (always of rank two)."""
    sizes: dict[str, Any] = {"tasks": tasks, "states": states, "actions": actions}
    sizes.update(horizon=horizon, key=jax.random.key(seed))
    if family == "blocks":
        return block_processes(**sizes, blocks=max(1, rank // actions))
    if family == "rich":
        return rich_combination_locks(**sizes)
    return latent_lock(**sizes, rank=rank, shared=family != "unshared")


def explore(
    method: AbstractMethod, groups: Sequence[FiniteProcess], *, updates: int, seed: int
) -> Curves:
    """Runs of `method`, one for each of `groups`: stacked tasks, or single ones."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *groups)
    keys = jax.random.split(jax.random.key(seed), len(groups))
    value, error, feature = _explore(method, stacked, updates, keys)
    return Curves(np.asarray(value), np.asarray(error), feature)


@eqx.filter_jit
def _explore(
    method: Any, processes: FiniteProcess, updates: int, keys: Key[Array, " run"]
) -> tuple[Array, Array, Array]:
    def one(given):
        process, key = given
        problem, best = process.problem(known_reward=True), best_return(process)
        source = FreshEpisodes(process, problem.tasks)

        def evaluate(agent):
            value = returns_of(process, agent.policy(explore=False)) / best
            error = worst_model_error(process, method.model(agent.state).transition)
            return jnp.mean(value), jnp.mean(error)

        found = learn(method, problem, source, updates, evaluate=evaluate, every=1, key=key)
        return *found.evaluations, method.features(found.state)

    return jax.lax.map(one, (processes, keys))


def grouped(tasks: LowRankTasks, size: int, runs: int) -> list[FiniteProcess]:
    """Groups of so many tasks, no task in two of them."""
    return [tasks.subset(range(at * size, (at + 1) * size)).process for at in range(runs)]


def by_instance(curves: Float[np.ndarray, "run position"], instances: int) -> Any:
    """Means over the runs of each instance: `[instance, position]`."""
    return curves.reshape(instances, -1, curves.shape[-1]).mean(1)


def first_reach(curve: np.ndarray, target: float, *, above: bool, per_update: int) -> float:
    """Episodes per task until `curve` first gets to `target`; all that there were if it never does.

    `curve` starts before the first update.
    """
    there = curve >= target if above else curve <= target
    at = int(np.argmax(there)) if there.any() else len(curve) - 1
    return float(at * per_update)
