"""Evaluations of a black box where a method proposes them, with measures or without."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import MeasuredQueries, Queries
from headwater.core.source import AbstractSource
from headwater.environments.black_boxes.black_box import AbstractBlackBox, require_finite
from headwater.environments.black_boxes.measured_box import AbstractMeasuredBox, require_within


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


class Measuring(eqx.Module):
    """The instance of the black box, its evaluations so far, and what came out of them.

    **Arguments:** `finite`: whether everything was; `least`, `most`: of each measure.
    """

    instance: Any
    evaluations: Int[Array, ""]
    finite: Bool[Array, ""]
    least: Float[Array, " measure"]
    most: Float[Array, " measure"]


class LiveMeasuredQueries(AbstractSource[Measuring, MeasuredQueries]):
    """Evaluates the solutions that a method varies, and says what they did.

    **Arguments:** `black_box`; `batch_size`: solutions for one update.
    """

    black_box: AbstractMeasuredBox
    batch_size: int = eqx.field(static=True, default=200)

    def init(self, *, key: PRNGKeyArray) -> Measuring:
        measures = self.black_box.measured_space.measures
        return Measuring(
            self.black_box.reset(),
            jnp.zeros((), jnp.int32),
            jnp.asarray(True),
            jnp.full(measures, jnp.inf),
            jnp.full(measures, -jnp.inf),
        )

    def draw(self, state: Measuring, agent: Agent, *, key: PRNGKeyArray):
        vary_key, value_key = jax.random.split(key)
        space = self.black_box.space
        points = agent.archiving.offspring(agent.state, self.batch_size, key=vary_key)
        points = jnp.asarray(space.rounded(points))

        def evaluate(point, key):
            place = jnp.asarray(space.from_unit(point))
            found = self.black_box.measured(state.instance, place)
            value = self.black_box.value(found.value, key=key)
            return MeasuredQueries(point, value, found.measures, found.frame)

        data = jax.vmap(evaluate)(points, jax.random.split(value_key, self.batch_size))
        # What is no number is said by `check`; for a method it is an evaluation that failed.
        state = Measuring(
            state.instance,
            state.evaluations + self.batch_size,
            state.finite & jnp.all(data.known),
            jnp.minimum(state.least, jnp.min(data.measures, axis=0)),
            jnp.maximum(state.most, jnp.max(data.measures, axis=0)),
        )
        return state, data

    def environment_steps(self, state: Measuring) -> Int[Array, ""]:
        return state.evaluations

    def check(self, state: Measuring) -> None:
        require_finite(self.black_box, bool(np.all(state.finite)))
        require_within(self.black_box, state.least, state.most)
