"""A method on one kind of data, with all that the checks compile of it.

Compilation is nearly all of the cost, so everything that is compiled is compiled once per case and
shared. Methods go into compiled functions as trees: every number that is not static is traced.
"""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import (
    AbstractArchiving,
    AbstractArmPolicy,
    AbstractCertificate,
    AbstractDynamics,
    AbstractLikelihood,
    AbstractMethod,
    AbstractModelBased,
    AbstractPolicy,
    AbstractProposer,
    AbstractRewardModel,
    AbstractTablePolicy,
    AbstractValue,
)
from headwater.core.records import (
    AuxiliaryTransitions,
    ComparisonsAndSegments,
    SegmentComparisons,
    Segments,
    StagedTransitions,
    Transition,
    Transitions,
)
from headwater.testing.checks.comparing import numbers
from headwater.testing.kinds.kind import ROWS, Kind

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Tiny programs that run a few times: compiling them well would be most of the cost."""

TOGETHER = 3
"""Runs side by side in the one program that is both mapped and looped."""
UPDATES = 4
"""Length of the runs that are compared. Settings that act later are dead to these tests."""


class Case:
    """One method on one kind of data, with its compiled pieces."""

    def __init__(self, method: AbstractMethod, kind: Kind):
        self.method, self.kind = method, kind
        self.key = jax.random.key(1)
        self.traces = 0
        batch = jit(kind.batch)
        # One for each update. Made now, since traced functions look at them.
        self.batches: list[Any] = [batch(jax.random.fold_in(self.key, i)) for i in range(UPDATES)]
        self.init = jit(lambda method, key: method.init(kind.problem, key=key))
        self.update = jit(self._counted_update)
        self.probe = jit(self._probe)
        self._experiences = jit(jax.vmap(self._experience))

    @functools.cached_property
    def shapes(self) -> tuple[Any, Any, Any]:
        """Of the state before an update, and of state and metrics after it; traced once."""
        method = self.method
        before = eqx.filter_eval_shape(method.init, self.kind.problem, key=self.key)
        after, metrics = eqx.filter_eval_shape(method.update, before, self.batches[0], key=self.key)
        return before, after, metrics

    @functools.cached_property
    def first(self) -> Any:
        """The state before any data."""
        return self.init(self.method, self.key)

    @functools.cached_property
    def trained(self) -> Any:
        """The state after the batches, updated one by one."""
        return self.run(self.method, self.key)[0]

    def run(self, method: AbstractMethod, key, batches=None) -> tuple[Any, Any]:
        """State and last metrics after a Python loop over `batches`."""
        state, metrics = self.init(method, key), None
        for i, data in enumerate(self.batches if batches is None else batches):
            state, metrics = self.update(method, state, data, jax.random.fold_in(key, i))
        return state, metrics

    def experiences(self, methods: Sequence[AbstractMethod], keys: Sequence[Any]) -> list[Any]:
        """Whole runs side by side, in one program: for each the first state, the last one, all
        metrics and all answers, on the host.

        **Arguments:** `methods`, `keys`: `TOGETHER` of each; methods may differ in their numbers.
        """
        assert len(methods) == len(keys) == TOGETHER
        stacked = jax.tree.map(lambda *x: np.asarray(x, jnp.asarray(x[0]).dtype), *methods)
        together = jax.tree.map(np.asarray, self._experiences(stacked, jnp.stack(list(keys))))
        return [jax.tree.map(lambda x, i=i: x[i], together) for i in range(TOGETHER)]

    @functools.cached_property
    def alike(self) -> list[Any]:
        """The experiences of `TOGETHER` runs that are the same."""
        return self.experiences([self.method] * TOGETHER, [self.key] * TOGETHER)

    def changed(self, change, updates: int = 2) -> list[np.ndarray]:
        """State and metrics after `updates` on the first batch, edited by `change`."""
        data = change(self.batches[0])
        return numbers(self.run(self.method, self.key, [data] * updates))

    @staticmethod
    def method_update(method, state, data, key):
        """`update` as a function of everything."""
        return method.update(state, data, key=key)

    def _counted_update(self, method, state, data, key):
        self.traces += 1
        return method.update(state, data, key=key)

    def act(self, state, observation, key) -> tuple[Any, Any]:
        """The actions of a policy without and with exploration."""
        assert isinstance(self.method, AbstractPolicy)
        greedy, exploring = (
            self.method.act(state, observation, key=key, explore=explore)[0]
            for explore in (False, True)
        )
        return greedy, exploring

    def _probe(self, method, state, key):
        """Whatever the method's capabilities answer, for one observation."""
        answers: dict[str, Any] = {}
        if isinstance(method, AbstractTablePolicy):
            for explore in (False, True):
                answers[f"policy, explore={explore}"] = method.policy(state, explore=explore)
        if isinstance(method, AbstractCertificate):
            answers["suboptimality_bound"] = method.suboptimality_bound(state)
        data = self.batches[0]
        if isinstance(method, AbstractArmPolicy):
            for explore in (False, True):
                answers[f"probabilities, explore={explore}"] = method.probabilities(
                    state, data.context[0], data.features[0], key=key, explore=explore
                )
        if isinstance(method, AbstractArchiving):
            answers["offspring"] = method.offspring(state, ROWS, key=key)
            answers["archive"] = method.archive(state)
        if isinstance(method, AbstractProposer):
            answers["propose"] = method.propose(state, key=key)
            answers["recommend"] = method.recommend(state, key=key)
        observation, action = _one_step(data)
        if observation is None:
            return answers
        if isinstance(method, AbstractPolicy):
            for explore in (False, True):
                answers[f"act, explore={explore}"] = method.act(
                    state, observation, key=key, explore=explore
                )
        if isinstance(method, AbstractValue):
            answers["value"] = method.value(state, observation, action)
        if isinstance(method, AbstractLikelihood):
            answers["log_probability"] = method.log_probability(state, observation, action)
        question = (state, observation, action)
        if isinstance(method, AbstractDynamics):
            answers["predict"] = method.predict(*question)
            answers["step"] = method.step(*question, key=key)
        if isinstance(method, AbstractModelBased):
            answers["imagine"] = method.imagine(*question, key=key)
        if isinstance(method, AbstractRewardModel):
            answers["rewards"] = method.rewards(*question)
        return answers

    def _experience(self, method, key):
        """A whole run, compiled as one: first state, a scan over the batches, all answers."""
        first = method.init(self.kind.problem, key=key)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *self.batches)

        def step(state, given):
            i, data = given
            return method.update(state, data, key=jax.random.fold_in(key, i))

        last, metrics = jax.lax.scan(step, first, (jnp.arange(UPDATES), stacked))
        return first, last, metrics, self._probe(method, last, jax.random.fold_in(key, UPDATES))


def _one_step(data: Any) -> tuple[Any, Any]:
    """Observation and action of the first row of data that have both; else `(None, None)`."""
    if isinstance(data, ComparisonsAndSegments):
        data = data.logged
    if isinstance(data, SegmentComparisons):
        data = data.first
    if isinstance(data, StagedTransitions):
        data = data.transitions
    if not isinstance(data, Transition | Transitions | AuxiliaryTransitions | Segments):
        return None, None
    observation, action = data.observation, data.action
    while observation.ndim > 1:
        observation, action = observation[0], action[0]
    return observation, action
