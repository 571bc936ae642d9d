"""A model of independent entries, against the process that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.factored.pan_flute import PanFlute
from headwater.methods.control.model_based.factored_dynamics import FactoredDynamics
from headwater.runs.learn import learn
from headwater.sources.replay import Replay


@pytest.mark.oracle
def test_chances_of_bits_and_rewards_are_learned():
    task = PanFlute(pipes=2)
    states = jnp.asarray((np.arange(8)[:, None] >> np.arange(3)) & 1)
    keys = jax.random.split(jax.random.key(0), 8 * 2 * 200).reshape(8, 2, 200)

    def after(bits, action, key):
        found = task.step(task.observed(bits), action, key=key)[1]
        return bits, action, found.reward, found.observation

    over_keys = jax.vmap(after, (None, None, 0))
    over_actions = jax.vmap(over_keys, (None, 0, 0))
    rows = jax.vmap(over_actions, (0, None, 0))(states.astype(jnp.float32), jnp.arange(2), keys)
    flat = [x.reshape(-1, *x.shape[3:]) for x in rows]
    no = jnp.zeros(len(flat[0]), bool)
    data = Transitions(flat[0], flat[1].astype(jnp.int32), flat[2], flat[3], no, no)
    method = FactoredDynamics(hidden_sizes=(32, 32), learning_rate=3e-3)

    @jax.jit
    def learned(key):
        state = learn(method, task.spaces, Replay(data, 256), 1_500, key=key).state
        ask = jax.vmap(jax.vmap(lambda o, a: method.predict(state, o, a), (None, 0)), (0, None))
        return ask(rows[0][:, 0, 0], jnp.arange(2, dtype=jnp.int32)), state

    found, state = learned(jax.random.key(1))
    chance = np.asarray(found.next_observation)
    for number, action in np.ndindex(8, 2):
        one, first, last = (number >> np.arange(3)) & 1
        # The last cells hold what was put or came there, or what chance brought.
        put = [1.0 if action == 0 else 0.25, float(action == 1), 1.0 if first else 0.25]
        np.testing.assert_allclose(chance[number, action], put, atol=0.08)
        assert abs(float(found.reward[number, action]) - one * last) < 0.05
    spread = np.sqrt((chance * (1.0 - chance)).sum(-1))
    np.testing.assert_allclose(found.spread, spread, rtol=1e-4, atol=1e-5)
    assert not np.asarray(found.terminal).any()
    # Steps are bits, drawn with these chances.
    draws = jax.vmap(lambda k: method.step(state, jnp.zeros(3), jnp.asarray(1), key=k))(
        jax.random.split(jax.random.key(2), 2_000)
    )
    drawn = np.asarray(draws.next_observation)
    assert set(np.unique(drawn)) == {0.0, 1.0} and not np.asarray(draws.terminal).any()
    np.testing.assert_allclose(drawn.mean(0), chance[0, 1], atol=0.05)


@pytest.mark.parity
def test_the_loss_of_bits_and_numbers_side_by_side():
    spaces = Spaces(Box((0.0, -5.0), (1.0, 5.0)), Discrete(2), horizon=9)
    method = FactoredDynamics(hidden_sizes=(4,))
    state = method.init(spaces, key=jax.random.key(0))
    observation = jnp.asarray([[1.0, 2.0], [0.0, -1.0]])
    following = jnp.asarray([[0.0, 2.5], [9.0, 9.0]])
    action, reward = jnp.asarray([1, 0]), jnp.asarray([0.5, -1.0])
    terminal = jnp.asarray([False, True])
    data = Transitions(observation, action, reward, following, terminal, jnp.zeros(2, bool))
    after, metrics = method.update(state, data, key=jax.random.key(1))
    assert not bool(state.ended) and bool(after.ended)

    def answer(network):
        seen = np.concatenate([observation, np.eye(2)[np.asarray(action)]], axis=1)
        weights, biases = (
            [np.asarray(x, np.float64) for x in part] for part in (network.weights, network.biases)
        )
        hidden = np.maximum(seen @ weights[0] + biases[0], 0.0)
        return hidden @ weights[1] + biases[1]

    networks = state.networks
    entries, brought, end = (answer(n) for n in (networks.following, networks.reward, networks.end))
    # A bit that became 0 and a change by a half; nothing is looked at behind the terminal row.
    first = np.log1p(np.exp(entries[0, 0])) + 0.5 * (entries[0, 1] - 0.5) ** 2
    rewards = 0.5 * np.sum((brought[:, 0] - np.asarray(reward)) ** 2)
    ends = np.log1p(np.exp(end[0, 0])) + np.log1p(np.exp(-end[1, 0]))
    np.testing.assert_allclose(metrics["loss"], (first + rewards + ends) / 2.0, rtol=1e-5)
    found = method.predict(state, observation[0], action[0])
    expected = [1.0 / (1.0 + np.exp(-entries[0, 0])), 2.0 + entries[0, 1]]
    np.testing.assert_allclose(found.next_observation, expected, rtol=1e-5)
