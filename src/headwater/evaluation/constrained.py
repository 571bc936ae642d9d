"""Exact rewards and costs of what constrained methods do while they learn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractMethod
from headwater.evaluation.constrained_planning import ConstrainedPlan, constrained_policy
from headwater.ops.tabular.approachability import vector_returns
from headwater.ops.tabular.experience import require_costs
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes


class ConstrainedProgress(NamedTuple):
    """How a method went about learning, in each of several processes.

    **Arguments:** `state`: at the end; `episodes`: played at every mark; `exact`: expected reward
    and costs of the policy at the mark; `seen`: sums of reward and costs of all episodes since the
    mark before.
    """

    state: Any
    episodes: np.ndarray
    exact: Float[Array, "process mark measure"]
    seen: Float[Array, "process mark measure"]


def measurement(process: FiniteProcess) -> Float[Array, "*process horizon state action measure"]:
    """Reward and costs side by side. Raises `SpecificationError` if the process has no costs."""
    if process.cost is None:
        raise SpecificationError("the process has no costs: give `cost`")
    return jnp.concatenate([process.reward[..., None], process.cost], axis=-1)


def best_within(process: FiniteProcess, budgets: Any) -> ConstrainedPlan:
    """The best policy within the budgets, by the linear program.

    Raises `SpecificationError` if the process has no costs or no policy keeps to the budgets.
    """
    if process.cost is None:
        raise SpecificationError("the process has no costs: give `cost`")
    costs = np.moveaxis(np.asarray(process.cost), -1, 0)
    return constrained_policy(process, costs, budgets)


def binding(
    make: Callable[[PRNGKeyArray], FiniteProcess],
    *,
    lowest: float,
    highest: float,
    count: int,
    key: PRNGKeyArray,
) -> list[FiniteProcess]:
    """The first `count` random processes where budgets of one cost mean something.

    **Arguments:** `make`: a process from a key; `lowest`: half of it can be kept to; `highest`: a
    budget that the best policy without any would overrun.
    """
    found = []
    while len(found) < count:
        key, own = jax.random.split(key)
        process = make(own)
        try:
            best_within(process, [lowest / 2.0])
        except SpecificationError:
            continue
        if best_within(process, [float(process.horizon)]).spent[0] > highest:
            found.append(process)
    return found


def course_of(
    method: AbstractMethod,
    process: FiniteProcess,
    budgets: Any,
    *,
    draws: int,
    every: int,
    explore: bool,
    key: PRNGKeyArray,
) -> ConstrainedProgress:
    """Learns in each of stacked processes, one program for all of them.

    **Arguments:** `draws`: how often episodes are drawn and learned from; `every`: draws between
    marks; `explore`: measure the policies that collect data, or the one that the method would
    commit to.

    Raises `SpecificationError` if `draws` is no multiple of `every`.
    """
    if draws % every:
        raise SpecificationError(f"draws = {draws} must be a multiple of every = {every}")
    keys = jax.random.split(key, process.reward.shape[0])
    state, exact, seen, played = _learn(
        method, process, jnp.asarray(budgets, jnp.float32), draws // every, every, explore, keys
    )
    return ConstrainedProgress(state, np.cumsum(np.asarray(played[0])), exact, seen)


@eqx.filter_jit
def _learn(method: Any, process, budgets, marks: int, every: int, explore: bool, keys):
    def one(given):
        process, key = given
        measured = measurement(process)

        def measure(agent, data):
            costs = require_costs(data, budgets.shape[0], type(method).__name__)
            steps = jnp.concatenate([data.reward[..., None], costs], axis=-1)
            played = jnp.asarray(data.reward.size // process.horizon)
            return {"seen": jnp.sum(steps.reshape(-1, steps.shape[-1]), axis=0), "played": played}

        def evaluate(agent):
            policy = agent.policy(explore=explore).reshape(-1, *process.reward.shape)[0]
            return vector_returns(process, measured, policy)

        found = learn(
            method,
            process.problem(budgets=budgets),
            FreshEpisodes(process),
            marks * every,
            measure=measure,
            evaluate=evaluate,
            every=every,
            key=key,
        )
        # What collects data is measured as it begins to, what a method commits to afterwards.
        exact = found.evaluations[:-1] if explore else found.evaluations[1:]
        return found.state, exact, found.sums["seen"], found.sums["played"]

    return jax.lax.map(one, (process, keys))
