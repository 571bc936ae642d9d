"""What a method found in a black box, exact in its values without noise."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Queries
from headwater.environments.black_boxes.black_box import AbstractBlackBox, require_finite


def worth_of_queries(agent: Agent, data: Queries) -> dict[str, Float[Array, ""]]:
    """Measures what evaluations brought and cost, and their regret: a `Stage.measure`."""
    found = {"value": jnp.mean(data.value), "cost": jnp.sum(data.cost)}
    return found if data.regret is None else {**found, "regret": jnp.mean(data.regret)}


class ExactValue:
    """The value without noise of the point that is recommended, for `run(evaluate=…)`.

    **Arguments:** `black_box`: evaluated at its last fidelity. A call raises `DataError` where that
    value is not finite.
    """

    def __init__(self, black_box: AbstractBlackBox):
        self._black_box = black_box

    def __call__(self, method: AbstractMethod, states: Any, key: PRNGKeyArray) -> np.ndarray:
        found = np.asarray(_values(self._black_box, method, states), np.float64)
        require_finite(self._black_box, bool(np.isfinite(found).all()))
        return found


def recommended_value(
    black_box: AbstractBlackBox, agent: Agent, *, key: PRNGKeyArray
) -> Float[Array, ""]:
    """The value without noise, at the last fidelity, of the point that `agent` recommends."""
    space = black_box.space
    point = space.from_unit(agent.proposer.recommend(agent.state, key=key))
    last = jnp.asarray(space.fidelities - 1, jnp.int32)
    return black_box.mean_value(black_box.reset(), point, last)


def simple_regret(
    black_box: AbstractBlackBox, agent: Agent, *, key: PRNGKeyArray
) -> Float[Array, ""]:
    """By how much that value falls short of the maximum, which has to be known."""
    highest = black_box.highest(black_box.reset())
    assert highest is not None
    return highest - recommended_value(black_box, agent, key=key)


class ArchiveCoverage:
    """The share of the cells of measures in which a solution was found, for `run(evaluate=…)`."""

    def __call__(self, method: AbstractMethod, states: Any, key: PRNGKeyArray) -> np.ndarray:
        return np.asarray(_coverages(method, states), np.float64)


@eqx.filter_jit
def _coverages(method: AbstractMethod, states: Any) -> Array:
    return jax.vmap(lambda state: Agent(method, state).archive().coverage()[None])(states)


@eqx.filter_jit
def _values(black_box: AbstractBlackBox, method: AbstractMethod, states: Any) -> Array:
    # The same key in every evaluation, so that they differ in what was learned alone.
    key = jax.random.key(0)

    def one(state):
        return recommended_value(black_box, Agent(method, state), key=key)[None]

    return jax.vmap(one)(states)
