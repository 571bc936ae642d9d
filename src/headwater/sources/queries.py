"""Evaluations of a black box where a method proposes them."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Queries
from headwater.core.source import AbstractSource
from headwater.environments.black_boxes.black_box import AbstractBlackBox, require_finite


class Querying(eqx.Module):
    """The instance of the black box, how often it was evaluated, and whether each was a number."""

    instance: Any
    evaluations: Int[Array, ""]
    finite: Bool[Array, ""]


class LiveQueries(AbstractSource[Querying, Queries]):
    """Evaluates a black box where the method proposes.

    **Arguments:** `black_box`; `batch_size`: points that are proposed before the first of them is
    evaluated: for each, those before it are taken to bring what is expected of them.
    """

    black_box: AbstractBlackBox
    batch_size: int = eqx.field(static=True, default=1)

    def init(self, *, key: PRNGKeyArray) -> Querying:
        none = jnp.zeros((), jnp.int32)
        return Querying(self.black_box.reset(), none, jnp.asarray(True))

    def draw(self, state: Querying, agent: Agent, *, key: PRNGKeyArray):
        propose_key, value_key = jax.random.split(key)
        points, fidelities = self._proposals(agent, key=propose_key)
        space = self.black_box.space
        highest = self.black_box.highest(state.instance)
        costs = jnp.asarray(space.costs, jnp.float32)

        def evaluate(point, fidelity, key):
            place = jnp.asarray(space.from_unit(point))
            mean = self.black_box.mean_value(state.instance, place, fidelity)
            regret = None
            if highest is not None:
                last = jnp.asarray(space.fidelities - 1, jnp.int32)
                regret = highest - self.black_box.mean_value(state.instance, place, last)
            value = self.black_box.value(mean, key=key)
            return Queries(point, value, fidelity, costs[fidelity], regret)

        keys = jax.random.split(value_key, self.batch_size)
        data = jax.vmap(evaluate)(points, fidelities, keys)
        good = jnp.isfinite(data.value)
        # What is no number is said by `check`; a method that learned from it would be blamed.
        data = dataclasses.replace(data, value=jnp.where(good, data.value, 0.0))
        finite = state.finite & jnp.all(good)
        return Querying(state.instance, state.evaluations + self.batch_size, finite), data

    def environment_steps(self, state: Querying) -> Int[Array, ""]:
        return state.evaluations

    def check(self, state: Querying) -> None:
        require_finite(self.black_box, bool(np.all(state.finite)))

    def _proposals(self, agent: Agent, *, key: PRNGKeyArray):
        method, keys = agent.proposer, jax.random.split(key, self.batch_size)
        if self.batch_size == 1:
            point, fidelity = method.propose(agent.state, key=keys[0])
            return point[None], fidelity[None]

        def one(state, key):
            point, fidelity = method.propose(state, key=key)
            return method.expect(state, point, fidelity), (point, fidelity)

        return jax.lax.scan(one, agent.state, keys)[1]
