"""Learning many instances of equal sizes side by side, in one compiled program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.finite import AbstractFiniteSimulator, FiniteProcess
from headwater.core.method import AbstractMethod, Agent
from headwater.ops.tabular.planning import expected_return
from headwater.runs.stage import Measure
from headwater.sources.episodes import play_each


def learn_instances(
    method: AbstractMethod,
    simulators: AbstractFiniteSimulator,
    problems: Any,
    measures: Measure,
    *,
    updates: int,
    key: Any,
) -> dict[str, np.ndarray]:
    """What is measured before each of `updates` updates and after the last, for each instance.

    A run has one problem for all of its seeds; here each seed has its own.

    **Arguments:** `method`: with a table policy; its numbers may have a leading instance axis;
    `simulators`, `problems`, `measures`: the arrays in them have a leading instance axis;
    after the last update there are no data, and `None` is measured.

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
    found = _learn(method, simulators, problems, measures, updates, keys)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


@eqx.filter_jit
def _learn(method, simulators, problems, measures, updates: int, keys):
    def one(arrays, key):
        method, simulator, problem, measure = eqx.combine(arrays, fixed)
        first, key = jax.random.split(key)

        def step(state, key):
            play_key, update_key = jax.random.split(key)
            agent = Agent(method, state)
            data = play_each(simulator, agent.policy(explore=True), key=play_key)
            seen = measure(agent, data)
            return method.update(state, data, key=update_key)[0], seen

        state = method.init(problem, key=first)
        state, seen = jax.lax.scan(step, state, jax.random.split(key, updates))
        last = measure(Agent(method, state), None)
        return jax.tree.map(lambda x, y: jnp.append(x, y), seen, last)

    arrays, fixed = eqx.partition((method, simulators, problems, measures), eqx.is_array)
    return jax.vmap(one)(arrays, keys)


class Worth(eqx.Module):
    """Measures the exact expected return of the policy that a method is judged by.

    **Arguments:** `process`: what it is exact for.
    """

    process: FiniteProcess

    def __call__(self, agent: Agent, data: Any) -> dict[str, jax.Array]:
        return {"return": expected_return(self.process, agent.policy(explore=False))}
