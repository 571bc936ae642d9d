"""Q-learning on features against that of a log of these features."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.core.spaces import Box
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.encoded_dqn import EncodedDQN
from headwater.methods.control.representation.pvn import PVN

from ..numpy_twin import batch, begin, problem, update

SHARED = {"learning_rate": 1e-2, "target_update_interval": 2, "exploration_decay_updates": 5.0}


@pytest.mark.equivalence
def test_it_is_q_learning_on_a_log_of_features():
    ours = EncodedDQN(embedding_size=5, hidden_sizes=(8,), **SHARED)
    plain = DQN(hidden_sizes=(), **SHARED)
    state = begin(ours, True)
    seen = dataclasses.replace(problem(True), observation=Box((-1.0,) * 5, (1.0,) * 5))
    other = plain.init(seen, key=jax.random.key(0))
    other = eqx.tree_at(
        lambda s: (s.critic, s.target), other, (state.values.critic, state.values.target)
    )
    first = state.encoding
    for i in range(4):
        data = batch(i, True)
        encoded = dataclasses.replace(
            data,
            observation=first(data.observation),
            next_observation=first(data.next_observation),
        )
        state, metrics = update(ours, state, data, key=jax.random.key(i))
        other, expected = update(plain, other, encoded, key=jax.random.key(i))
        for name in expected:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4)
    for left, right in zip(jax.tree.leaves(state.values), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-6)
    for left, right in zip(jax.tree.leaves(state.encoding), jax.tree.leaves(first)):
        np.testing.assert_array_equal(left, right)
    observation, key = data.observation[1], jax.random.key(7)
    features = first(observation)
    for explore in (False, True):
        action = ours.act(state, observation, key=key, explore=explore)[0]
        assert action == plain.act(other, features, key=key, explore=explore)[0]
    np.testing.assert_allclose(
        ours.log_probability(state, observation, action),
        plain.log_probability(other, features, action),
        rtol=1e-3,
    )
    np.testing.assert_allclose(
        ours.value(state, observation, action), plain.value(other, features, action), rtol=1e-3
    )


def test_it_begins_with_features_that_were_learned_and_from_nothing_else():
    learned = PVN(num_rewards=4, rewards_per_network=2, embedding_size=3, hidden_sizes=(8,))
    state = begin(learned, True)
    ours = EncodedDQN()
    key = jax.random.key(0)
    begun = ours.warm_start(Agent(learned, state), problem(True), key=key)
    assert begun is not None
    observation = batch(0, True).observation
    np.testing.assert_array_equal(begun.encoding(observation), learned.encoding(state)(observation))
    assert begun.values.critic.network.weights[0].shape == (3, 4)
    assert ours.warm_start(Agent(DQN(), begin(DQN(), True)), problem(True), key=key) is None
