"""Proto-value networks against exact values of their random sets, quantiles and NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.analysis.proto_values import set_values
from headwater.core.errors import SpecificationError
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.representation.pvn import PVN
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

from ..numpy_twin import batch, begin, leaves, problem, standardised, update

SMALL = {"num_rewards": 6, "rewards_per_network": 3, "embedding_size": 4, "hidden_sizes": (8,)}


@pytest.mark.oracle
def test_it_learns_the_values_of_its_sets_on_a_ring():
    cells, discount = 6, 0.7
    cell, action = (x.reshape(-1) for x in np.indices((cells, 2)))
    following = (cell + 2 * action - 1) % cells
    seen = np.eye(cells, dtype=np.float32)
    nothing = np.zeros(len(cell), np.float32)
    columns = (seen[cell], action.astype(np.int32), nothing, seen[following])
    data = jax.tree.map(jnp.asarray, Transitions(*columns, nothing > 0, nothing > 0))
    spaces = Spaces(Box((0.0,) * cells, (1.0,) * cells), Discrete(2))
    method = PVN(
        discount=discount,
        num_rewards=8,
        rewards_per_network=4,
        reward_share=0.4,
        threshold_updates=300,
        embedding_size=16,
        learning_rate=3e-3,
        polyak_rate=0.1,
        normalise_observations=False,
        hidden_sizes=(32,),
    )
    source = Replay(data, 12)
    run = eqx.filter_jit(lambda key: learn(method, spaces, source, 2_500, key=key).state)
    state = run(jax.random.key(0))
    sets = np.asarray(state.indicators(jnp.asarray(seen)) > 0).astype(float)
    # Sets that are not all alike, and none that holds everything or nothing.
    assert len(np.unique(sets, axis=1).T) > 3 and set(sets.sum(0)) <= {1.0, 2.0, 3.0, 4.0}
    uniform = 0.5 * (np.roll(np.eye(cells), 1, 1) + np.roll(np.eye(cells), -1, 1))
    exact = set_values(uniform, sets.T, discount)
    on = exact[np.stack([(np.arange(cells) - 1) % cells, (np.arange(cells) + 1) % cells], 1)]
    expected = sets[:, :, None] + discount * on.transpose(0, 2, 1)
    found = np.asarray(state.values(jnp.asarray(seen), 8))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()


@pytest.mark.oracle
def test_each_set_holds_the_share_that_it_should():
    rng = np.random.default_rng(0)
    seen = jnp.asarray(rng.normal(size=(200, 3)), jnp.float32)
    nothing = jnp.zeros(200)
    data = Transitions(seen, nothing.astype(int), nothing, seen, nothing > 0, nothing > 0)
    method = PVN(reward_share=0.2, threshold_updates=600, learning_rate=3e-3, **SMALL)
    spaces = Spaces(Box((-9.0,) * 3, (9.0,) * 3), Discrete(2))
    run = eqx.filter_jit(lambda key: learn(method, spaces, Replay(data, 200), 600, key=key).state)
    indicators = run(jax.random.key(0)).indicators
    outside = indicators(seen) - indicators.biases[None]
    expected = np.quantile(np.asarray(outside), 0.8, axis=0)
    np.testing.assert_allclose(-indicators.biases, expected, atol=0.03)


def _perceptron(parameters, x):
    first, last, bias, last_bias = parameters
    return np.maximum(x @ first + bias, 0) @ last + last_bias


@pytest.mark.parity
def test_the_first_update():
    method, data = PVN(reward_share=0.3, **SMALL), batch(0, True)
    state = begin(method, True)
    after, metrics = update(method, state, data, key=jax.random.key(0))
    observation = standardised(data.observation)

    def values(x):
        encoder, heads = state.values.encoder.network, state.values.heads
        found = _perceptron(leaves((encoder.weights, encoder.biases)), x)
        centred = found - found.mean(-1, keepdims=True)
        kept = np.tanh(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))
        weight, bias = leaves((heads.weights, heads.biases))
        return (kept @ weight + bias).reshape(len(x), 6, -1)

    networks = state.indicators.networks.stacked
    members = [
        _perceptron([part[i] for part in leaves((networks.weights, networks.biases))], observation)
        for i in range(2)
    ]
    within = np.concatenate(members, axis=1)
    ahead = values(standardised(data.next_observation)).mean(-1)
    reward = (within > 0).astype(float)
    target = np.where(np.asarray(data.terminal)[:, None], reward, reward + 0.99 * ahead)
    rows = np.arange(len(observation))
    chosen = values(observation)[rows, :, np.asarray(data.action)]
    np.testing.assert_allclose(metrics["loss"], 0.5 * np.mean((chosen - target) ** 2), rtol=1e-4)
    np.testing.assert_allclose(metrics["reward_share"], reward.mean(), rtol=1e-5)
    # Adam's first step is as long as its rate, against the sign of the slope.
    slope = (0.7 - (within < 0)).mean(0)
    np.testing.assert_allclose(after.indicators.biases, -1e-3 * np.sign(slope), rtol=1e-3)


def test_thresholds_stay_after_a_while_and_random_networks_always():
    method = PVN(threshold_updates=2, **SMALL)
    states = [begin(method, True)]
    for i in range(3):
        states.append(update(method, states[-1], batch(i, True), key=jax.random.key(i))[0])
    moved = lambda part, i: [
        bool((a != b).any())
        for a, b in zip(jax.tree.leaves(part(states[i])), jax.tree.leaves(part(states[i + 1])))
    ]
    for i in range(3):
        assert all(moved(lambda s: s.values.heads, i)) and all(moved(lambda s: s.target.heads, i))
        assert moved(lambda s: s.indicators.biases, i) == [i < 2]
        assert not any(moved(lambda s: s.indicators.networks, i))


def test_rewards_that_networks_cannot_share_are_refused():
    with pytest.raises(SpecificationError, match="rewards_per_network = 4 does not divide"):
        PVN(num_rewards=6, rewards_per_network=4).init(problem(True), key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="discrete"):
        PVN().init(problem(False), key=jax.random.key(0))
