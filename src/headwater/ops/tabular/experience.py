"""Models made of episodes: with costs, and for processes that are the same at every step.

Where the process is known to be stationary, the counts of all steps are added up: their step axis
has length one, and estimates are repeated for every step of the horizon.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.records import Episodes
from headwater.ops.sums import CompensatedSum, add_to, no_sum
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    count,
    estimated_transition,
    mean_reward,
    no_counts,
)


class Experience(eqx.Module):
    """What was seen of a process with costs.

    **Arguments:** `counts`; `cost`: sums of costs.
    """

    counts: Counts
    cost: CompensatedSum


def no_steps(problem: FiniteProblem, *, stationary: bool) -> Counts:
    """Counts before anything was seen, with one step for all if `stationary`."""
    return no_counts(dataclasses.replace(problem, horizon=1) if stationary else problem)


def count_steps(counts: Counts, data: Episodes, problem: FiniteProblem) -> Counts:
    """Adds episodes; those of a stationary process to the one step of `counts`."""
    return count(counts, _as_counted(counts, data), problem)


def no_experience(problem: FiniteProblem, *, constraints: int, stationary: bool) -> Experience:
    """Before anything was seen."""
    counts = no_steps(problem, stationary=stationary)
    return Experience(counts, no_sum((*counts.visits.shape, constraints)))


def gather(
    experience: Experience, data: Episodes, problem: FiniteProblem, method: str
) -> Experience:
    """Adds episodes of `problem`.

    **Arguments:** `method`: whose name a complaint bears.

    Raises `SpecificationError` if the episodes do not have the costs that are asked for.
    """
    costs = require_costs(data, experience.cost.total.shape[-1], method)
    counts, steps = experience.counts, _as_counted(experience.counts, data)
    step = jnp.broadcast_to(jnp.arange(steps.action.shape[-1]), steps.action.shape)
    at = step, steps.state[..., :-1], steps.action
    costs = costs.reshape(*steps.action.shape, -1)
    return Experience(count(counts, steps, problem), add_to(experience.cost, at, costs))


def require_budgets(problem: FiniteProblem, method: str) -> Float[Array, " constraint"]:
    """The budgets, checked as far as they are known when a program is compiled.

    Raises `SpecificationError` if there are none, or they are no list of finite numbers.
    """
    budgets = problem.require_budgets(method)
    if budgets.ndim != 1 or not budgets.shape[0]:
        raise SpecificationError(
            f"{method} needs a list of budgets, one for each cost, not shape {budgets.shape}"
        )
    if not isinstance(budgets, Tracer) and not np.isfinite(np.asarray(budgets)).all():
        raise SpecificationError(f"{method} needs finite budgets, not {budgets.tolist()}")
    return budgets


def require_costs(
    data: Episodes, constraints: int, method: str
) -> Float[Array, "*batch step constraint"]:
    """The costs of episodes.

    Raises `SpecificationError` if there are none, or not as many as budgets.
    """
    if data.cost is None:
        raise SpecificationError(
            f"{method} keeps to {constraints} budgets, but the episodes have no costs: give the "
            "process a `cost`"
        )
    if data.cost.shape[-1] != constraints:
        raise SpecificationError(
            f"{method} keeps to {constraints} budgets, but the episodes have "
            f"{data.cost.shape[-1]} costs: there must be one budget for each"
        )
    return jnp.asarray(data.cost)


def mean_cost(experience: Experience) -> Float[Array, "step state action constraint"]:
    """Zero where nothing was seen."""
    return experience.cost.total / at_least_once(experience.counts.visits)[..., None]


def resting_transition(counts: Counts) -> Float[Array, "step state action state"]:
    """Frequencies of next states; where nothing was seen the process stays in its state."""
    staying = jnp.broadcast_to(jnp.eye(counts.following.shape[-1])[:, None], counts.following.shape)
    return jnp.where(counts.visits[..., None] > 0.0, estimated_transition(counts), staying)


def for_every_step(array: Shaped[Array, "_ *shape"], horizon: int) -> Shaped[Array, "step *shape"]:
    """`array` with one entry for each step, repeated if it has one for all."""
    return jnp.broadcast_to(array, (horizon, *array.shape[1:]))


def learned_process(
    counts: Counts,
    problem: FiniteProblem,
    *,
    reward: Float[Array, "horizon state action"] | None = None,
    cost: Float[Array, "horizon state action constraint"] | None = None,
    unseen_cost: float | Float[Array, ""] | None = None,
) -> FiniteProcess:
    """The process that was explored, with rewards and costs that are given now, made for planning.

    An action that was never taken leads nowhere, earns the lowest reward that there may be and
    costs `unseen_cost`, so that no plan leads into the unknown to save costs. If nothing else is
    said it costs `1 / horizon`.

    **Arguments:** `reward`: known ones; those that were seen, if none are given; `cost`: known.

    Raises `SpecificationError` if the initial distribution is not known.
    """
    if problem.initial is None:
        raise SpecificationError("planning needs to know where episodes start: give `initial`")
    horizon = problem.horizon
    seen = for_every_step(counts.visits, horizon) > 0.0
    if reward is None:
        reward = for_every_step(mean_reward(counts, problem), horizon)
    if cost is not None:
        unseen = 1.0 / horizon if unseen_cost is None else unseen_cost
        cost = jnp.where(seen[..., None], cost, unseen)
    transition = for_every_step(resting_transition(counts), horizon)
    lowest = jnp.minimum(jnp.min(reward), problem.lowest_reward)
    return FiniteProcess(transition, jnp.where(seen, reward, lowest), problem.initial, cost)


def _as_counted(counts: Counts, data: Episodes) -> Episodes:
    """The episodes, cut into single steps if the counts have one step for all."""
    if counts.visits.shape[0] == data.action.shape[-1]:
        return data
    here, there = data.state[..., :-1], data.state[..., 1:]
    return Episodes(
        jnp.stack([here, there], axis=-1), data.action[..., None], data.reward[..., None]
    )
