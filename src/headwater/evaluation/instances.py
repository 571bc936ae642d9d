"""Learning many instances of equal sizes side by side, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.finite import AbstractFiniteSimulator, FiniteProcess
from headwater.core.method import AbstractMethod, Agent
from headwater.ops.tabular.planning import expected_return
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes


def stacked(processes: Sequence[Any]) -> Any:
    """Processes of equal sizes (or problems, or other trees of arrays) along a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *processes)


def learn_instances(
    method: AbstractMethod,
    simulators: AbstractFiniteSimulator,
    problems: Any,
    evaluate: Callable[[Agent], dict[str, Any]],
    *,
    updates: int,
    key: Any,
) -> dict[str, np.ndarray]:
    """What `evaluate` finds before each of `updates` updates and after the last, for each instance.

    **Arguments:** `method`: with a table policy; its numbers may have a leading instance axis;
    `simulators`, `problems`, `evaluate`: the arrays in them have a leading instance axis.

    **Returns:** by name, `[instance, updates + 1]`. Raises `SpecificationError` if there is nothing
    to do.
    """
    arrays = jax.tree.leaves(eqx.filter(simulators, eqx.is_array))
    if updates < 1 or not arrays or not len(arrays[0]):
        raise SpecificationError("learning instances takes at least one instance and one update")
    count = len(arrays[0])
    keys = jax.random.split(key, count)
    # As arrays they are no part of the compiled program: other numbers compile nothing anew.
    method = jax.tree.map(
        lambda x: jnp.full(count, x, jnp.float32) if isinstance(x, float) else x, method
    )
    found = _learn(method, simulators, problems, evaluate, updates, keys)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def first_time(curves: np.ndarray, level: np.ndarray, span: int) -> np.ndarray:
    """The first update after which the mean of the last `span` values reaches `level`, or NaN."""
    sums = np.cumsum(np.pad(curves, ((0, 0), (1, 0))), axis=1)
    mean = (sums[:, span:] - sums[:, :-span]) / span
    reached = mean >= level[:, None]
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + span - 1.0, np.nan)


@eqx.filter_jit
def _learn(method, simulators, problems, evaluate, updates: int, keys):
    def one(arrays, key):
        method, simulator, problem, evaluate = eqx.combine(arrays, fixed)
        source = FreshEpisodes(simulator)
        found = learn(method, problem, source, updates, evaluate=evaluate, every=1, key=key)
        return found.evaluations

    arrays, fixed = eqx.partition((method, simulators, problems, evaluate), eqx.is_array)
    return jax.vmap(one)(arrays, keys)


class ExactReturn(eqx.Module):
    """Measures the exact expected return of the policy that a method is judged by.

    **Arguments:** `process`: what it is exact for.
    """

    process: FiniteProcess

    def __call__(self, agent: Agent) -> dict[str, jax.Array]:
        return {"return": expected_return(self.process, agent.policy(explore=False))}
