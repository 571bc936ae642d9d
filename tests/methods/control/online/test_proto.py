"""PROTO against SAC, which it is without its anchor, and the divergence against a sum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.proto import PROTO
from headwater.methods.control.online.sac import SAC
from headwater.networks.distributions import Categorical, Normal, divergence_from

from ..numpy_twin import batch, problem, update

SETTINGS = {
    "hidden_sizes": (8, 8),
    "num_critics": 4,
    "num_critic_updates": 2,
    "backup_entropy": 0.0,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
}


def _learned(method, discrete: bool, updates: int = 3):
    state = method.init(problem(discrete), key=jax.random.key(1))
    for i in range(updates):
        state, _ = update(method, state, batch(i, discrete), key=jax.random.key(i))
    return state


@pytest.mark.equivalence
@pytest.mark.parametrize("discrete", [False, True])
def test_without_weight_and_minimum_it_is_sac(discrete):
    # What the anchor's action is worth is a constant under the mean, and has no gradient.
    near = _learned(PROTO(**SETTINGS, kl_weight=0.0, actor_reduction="mean"), discrete)
    free = _learned(SAC(**SETTINGS, actor_reduction="mean"), discrete)
    for ours, theirs in zip(jax.tree.leaves(near.soft), jax.tree.leaves(free), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("discrete", [False, True])
def test_a_large_weight_holds_the_actor(discrete):
    # Adam steps by its rate whatever the size of a gradient, so it comes back and does not rest.
    method = PROTO(**{**SETTINGS, "actor_learning_rate": 1e-3}, kl_weight=1e6)
    free = dataclasses.replace(method, kl_weight=0.0)
    observation = batch(0, discrete).observation
    found = []
    for each in (method, free):
        state = _learned(each, discrete, 60)
        policy, anchor = state.soft.actor(observation), state.anchor(observation)
        found.append(float(jnp.mean(divergence_from(policy, anchor))))
    assert found[0] < 1e-4 < 5e-4 < found[1]


@pytest.mark.oracle
def test_the_anchor_moves_a_share_of_the_way():
    method = PROTO(**SETTINGS, anchor_rate=0.25)
    state = method.init(problem(False), key=jax.random.key(1))
    moved, _ = update(method, state, batch(0, False), key=jax.random.key(0))
    parts = (jax.tree.leaves(s) for s in (state.anchor, moved.soft.actor, moved.anchor))
    for old, own, new in zip(*parts, strict=True):
        np.testing.assert_allclose(new, 0.75 * old + 0.25 * own, rtol=1e-5, atol=1e-7)


@pytest.mark.oracle
def test_the_divergence_is_that_of_its_definition():
    x = np.linspace(-12.0, 12.0, 40_001)
    one, other = ((0.3, -0.4), (-0.2, 0.1)), ((0.5, 0.2), (0.1, -0.3))
    expected = 0.0
    for mean, log_std, away, wide in zip(one[0], one[1], other[0], other[1]):
        log_p = -0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std
        log_q = -0.5 * ((x - away) / np.exp(wide)) ** 2 - wide
        density = np.exp(log_p) / np.sqrt(2.0 * np.pi)
        expected += np.sum(density * (log_p - log_q)) * (x[1] - x[0])
    normals = (Normal(jnp.asarray(mean), jnp.asarray(log_std)) for mean, log_std in (one, other))
    assert float(divergence_from(*normals)) == pytest.approx(expected, rel=1e-4)
    p, q = np.asarray([0.2, 0.3, 0.5]), np.asarray([0.6, 0.3, 0.1])
    found = divergence_from(Categorical(jnp.log(p) + 1.0), Categorical(jnp.log(q) - 2.0))
    assert float(found) == pytest.approx(np.sum(p * np.log(p / q)), rel=1e-5)


@pytest.mark.oracle
def test_it_begins_held_to_the_policy_that_it_takes_over():
    offline = IQL(hidden_sizes=(8, 8))
    learned = offline.init(problem(False), key=jax.random.key(3))
    method = PROTO(**SETTINGS)
    state = method.warm_start(Agent(offline, learned), problem(False), key=jax.random.key(4))
    assert state is not None
    for held in (state.anchor, state.soft.actor):
        for ours, theirs in zip(jax.tree.leaves(held), jax.tree.leaves(learned.networks.actor)):
            np.testing.assert_array_equal(ours, theirs)
