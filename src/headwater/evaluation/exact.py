"""Exact worth and regret of policies of finite processes, from the known model."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractMethod, Agent
from headwater.ops.tabular.planning import expected_return, optimal_values


class Regret(eqx.Module):
    """Measures how much the policies of the next episodes fall short of the best one.

    Made for `Stage.measure`: the loop logs its mean over updates, and `cumulative` adds it up. Of
    several policies (episodes, tasks) it takes the mean.

    **Arguments:** `process`; with a leading task axis for several tasks; `best`: the highest
    expected return of each; `explore`: measure the policies that collect data, or the one that the
    method would commit to. The data of an update do not matter.
    """

    process: FiniteProcess
    best: Float[Array, "*task"]
    explore: bool = eqx.field(static=True, default=True)

    def __call__(self, agent: Agent, data: Any = None) -> dict[str, Float[Array, ""]]:
        policies = agent.policy(explore=self.explore)
        returns = returns_of(self.process, policies)
        best = self.best.reshape(*self.best.shape, *(1,) * (returns.ndim - self.best.ndim))
        return {"regret": jnp.mean(best - returns)}


def regret_of(process: FiniteProcess, *, explore: bool = True) -> Regret:
    """The measure of regret in `process`."""
    return Regret(process, best_return(process), explore)


def best_return(process: FiniteProcess) -> Float[Array, "*task"]:
    """The highest expected return of any policy, exact; one for each task."""
    if process.reward.ndim == 4:
        return eqx.filter_vmap(best_return)(process)
    return jnp.dot(process.initial, optimal_values(process).value[0])


def returns_of(
    process: FiniteProcess, policies: Float[Array, "*episodes horizon state action"]
) -> Float[Array, "*episodes"]:
    """Exact expected returns of policies; their first axis is the task where there are several."""
    if process.reward.ndim == 4:
        return eqx.filter_vmap(returns_of)(process, policies)
    lead = policies.shape[:-3]
    flat = policies.reshape(-1, *policies.shape[-3:])
    return jax.vmap(lambda policy: expected_return(process, policy))(flat).reshape(lead)


class ExactReturn:
    """Evaluates the greedy policy exactly: for `run(evaluate=…)`, one return per seed and task."""

    def __init__(self, process: FiniteProcess):
        self._process = process

    def __call__(self, method: AbstractMethod, states: Any, key: Any) -> np.ndarray:
        return np.asarray(_greedy_returns(self._process, method, states), np.float64)


@eqx.filter_jit
def _greedy_returns(process: FiniteProcess, method: AbstractMethod, states: Any) -> Array:
    def one(state):
        return jnp.atleast_1d(returns_of(process, Agent(method, state).policy(explore=False)))

    return jax.vmap(one)(states)


def cumulative(rows: Sequence[dict[str, Any]], name: str = "regret") -> tuple[np.ndarray, ...]:
    """What a measure has added up to, from the rows of metrics that a run logged.

    **Returns:** updates `[row]` and sums `[seed, row]`. Raises `SpecificationError` if nothing of
    this name was logged.
    """
    if not rows or name not in rows[0]["metrics"]:
        known = ", ".join(sorted(rows[0]["metrics"])) if rows else "nothing"
        raise SpecificationError(f"the run logged no {name} (it logged {known})")
    updates = np.asarray([row["update"] for row in rows])
    means = np.asarray([row["metrics"][name] for row in rows], np.float64)
    counts = np.diff(updates, prepend=0)
    return updates, np.cumsum(means * counts[:, None], axis=0).T
