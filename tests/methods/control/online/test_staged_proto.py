"""StagedPROTO against PROTO, which it is between stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.core.records import StagedTransitions
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.proto import PROTO
from headwater.methods.control.online.staged_proto import StagedPROTO
from headwater.parts.soft_actor_critic import NearPolicy

from ..numpy_twin import batch, problem, update

SETTINGS = {
    "hidden_sizes": (8, 8),
    "num_critics": 3,
    "num_critic_updates": 2,
    "kl_weight": 2.0,
    "target_entropy": -3.0,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
}
METHOD, TWIN = StagedPROTO(**SETTINGS), PROTO(**SETTINGS)


def _same(one, other):
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.equivalence
def test_it_is_proto_whose_anchor_is_the_actor_where_a_stage_has_passed():
    key, rows = jax.random.key(1), batch(0, False)
    twin = state = METHOD.init(problem(False), key=key)
    metrics = {}
    _same(state, TWIN.init(problem(False), key=key))
    # Of three updates, a stage has passed before the second alone, and one row says so.
    for i, row in enumerate((None, 0, None)):
        passed = jnp.arange(rows.reward.shape[0]) == (-1 if row is None else row)
        if row is not None:
            twin = NearPolicy(twin.soft, twin.soft.actor)
        key, rows = jax.random.key(i), batch(i, False)
        before = state
        state, metrics = update(METHOD, state, StagedTransitions(rows, passed), key=key)
        twin, expected = update(TWIN, twin, rows, key=key)
        _same(state, twin)
        assert float(metrics.pop("stages_passed")) == (row is not None)
        _same(metrics, expected)
        _same(state.anchor, before.anchor if row is None else before.soft.actor)
    # The actor had moved, so that it matters where the anchor is.
    assert float(metrics["divergence"]) > 1e-6


@pytest.mark.equivalence
def test_it_begins_held_to_the_policy_that_it_takes_over():
    offline = IQL(hidden_sizes=(8, 8))
    learned = Agent(offline, offline.init(problem(False), key=jax.random.key(3)))
    key = jax.random.key(4)
    state = METHOD.warm_start(learned, problem(False), key=key)
    _same(state, TWIN.warm_start(learned, problem(False), key=key))
    assert state is not None
    _same(state.anchor, learned.state.networks.actor)
