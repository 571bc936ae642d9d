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
from headwater.environments.black_boxes.black_box import (
    AbstractBlackBox,
    AbstractExactBox,
    require_finite,
)
from headwater.environments.black_boxes.measured_box import AbstractMeasuredBox, require_within

_SAME = 1e-6
"""Points of the unit cube that differ by no more are one."""


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


class Remembering(eqx.Module):
    """The instance of an exact black box, and what was evaluated so far: the first `count` rows.

    **Arguments:** `evaluations`: proposals so far, those that were known already included;
    `finite`: whether each value was.
    """

    instance: Any
    evaluations: Int[Array, ""]
    finite: Bool[Array, ""]
    point: Float[Array, "room component"]
    value: Float[Array, " room"]
    count: Int[Array, ""]


class RememberedQueries(AbstractSource[Remembering, Queries]):
    """Evaluates an exact black box where the method proposes, and no point twice.

    Of a point that was evaluated before, in the same batch or an earlier one, the value is that of
    then, and the cost is 0. A batch of such points alone takes no time, unless several seeds are
    mapped.

    **Arguments:** `black_box`; `batch_size`: as of `LiveQueries`; `room`: different points that
    there may be.
    """

    black_box: AbstractExactBox
    batch_size: int = eqx.field(static=True, default=1)
    room: int = eqx.field(static=True, default=100)

    def init(self, *, key: PRNGKeyArray) -> Remembering:
        none, size = jnp.zeros((), jnp.int32), self.black_box.space.size
        table = jnp.zeros((self.room, size)), jnp.zeros(self.room)
        return Remembering(self.black_box.reset(), none, jnp.asarray(True), *table, none)

    def draw(self, state: Remembering, agent: Agent, *, key: PRNGKeyArray):
        box, space = self.black_box, self.black_box.space
        points, fidelities = LiveQueries(box, self.batch_size)._proposals(agent, key=key)
        points = jnp.asarray(space.rounded(points))
        filled = jnp.arange(self.room, dtype=jnp.int32) < state.count
        same = _same(points, state.point) & filled[None, :]
        known, found = jnp.any(same, axis=1), state.value[jnp.argmax(same, axis=1)]
        first = jnp.argmax(_same(points, points), axis=1)
        fresh = ~known & (first == jnp.arange(self.batch_size))

        def evaluate():
            last = jnp.asarray(space.fidelities - 1, jnp.int32)
            one = lambda point: box.mean_value(state.instance, space.from_unit(point), last)
            return jnp.where(known, found, jax.vmap(one)(points))

        value = jax.lax.cond(jnp.all(known), lambda: found, evaluate)
        good = jnp.isfinite(value)
        # What is no number is said by `check`; a method that learned from it would be blamed.
        value = jnp.where(good, value, 0.0)
        rows = jnp.where(fresh, state.count + jnp.cumsum(fresh) - 1, self.room)
        after = Remembering(
            state.instance,
            state.evaluations + self.batch_size,
            state.finite & jnp.all(good),
            state.point.at[rows].set(points, mode="drop"),
            state.value.at[rows].set(value, mode="drop"),
            state.count + jnp.sum(fresh, dtype=jnp.int32),
        )
        cost = jnp.where(fresh, jnp.asarray(space.costs[-1], jnp.float32), 0.0)
        return after, Queries(points, value, fidelities, cost)

    def environment_steps(self, state: Remembering) -> Int[Array, ""]:
        return state.evaluations

    def check(self, state: Remembering) -> None:
        require_finite(self.black_box, bool(np.all(state.finite)))


def _same(these: Float[Array, "row component"], those: Float[Array, "other component"]) -> Array:
    return jnp.all(jnp.abs(these[:, None, :] - those[None, :, :]) <= _SAME, axis=2)


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
