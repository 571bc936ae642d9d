"""HistoryCQL against NumPy, and on a problem that asks for memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.transform import with_history
from headwater.methods.control.offline.history_cql import HistoryCQL, bisimulation_loss
from headwater.networks.control.histories import Expected

from ..small_problems import trained


def _cued(episodes: int = 40) -> Dataset:
    """A cue, and a step later a choice that is rewarded if it is the one that the cue named.

    In the step of the choice nothing is seen; cues and actions are all as frequent.
    """
    cue = np.arange(episodes) % 2
    observations = np.zeros((2 * episodes, 2))
    observations[0::2] = np.eye(2)[cue]
    choice = np.arange(episodes) // 2 % 2
    actions = np.zeros(2 * episodes, int)
    actions[1::2] = choice
    rewards = np.zeros(2 * episodes)
    rewards[1::2] = choice == cue
    ends = np.arange(2 * episodes) % 2 == 1
    return Dataset.from_arrays(observations, actions, rewards, ends, action_count=2)


@pytest.mark.oracle
def test_it_remembers_what_is_no_longer_seen():
    log = with_history(_cued(), 3)
    method = HistoryCQL(discount=0.9, learning_rate=1e-2, code_size=8, hidden_sizes=(16,))
    data = jax.tree.map(jnp.asarray, log.transitions())
    state = trained(method, log.spaces, data, 300)
    act = lambda observation: method.act(state, observation, key=jax.random.key(0), explore=False)[
        0
    ]
    chosen = np.asarray(jax.vmap(act)(data.observation[1:4:2]))
    assert chosen.tolist() == [0, 1]


@pytest.mark.parity
def test_values_are_those_of_a_recurrent_network_over_the_frames_that_there_are():
    log = with_history(_cued(), 4)
    method = HistoryCQL(code_size=3, hidden_sizes=(5,))
    state = method.init(log.spaces, key=jax.random.key(1))
    cell, head = state.critic.encoder.cell, state.critic.head
    last = log.observations.reshape(-1, 4, 5)[:, -1]
    mean, std = last.mean(0), last.std(0) + 1e-3
    mean[-1], std[-1] = 0.0, 1.0
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    for row in range(4):
        code = np.zeros(3)
        # Of the second step of an episode two frames exist, of the first one.
        for frame in log.observations[row].reshape(4, 5)[3 - row % 2 :]:
            inputs = np.asarray(cell.weight_ih) @ ((frame - mean) / std) + np.asarray(cell.bias)
            kept = np.asarray(cell.weight_hh) @ code
            reset = sigmoid(inputs[:3] + kept[:3])
            stay = sigmoid(inputs[3:6] + kept[3:6])
            new = np.tanh(inputs[6:] + reset * (kept[6:] + np.asarray(cell.bias_n)))
            code = new + stay * (code - new)
        hidden = np.maximum(code @ head.weights[0] + head.biases[0], 0)
        expected = hidden @ head.weights[1] + head.biases[1]
        values = state.critic.values(state.normaliser(jnp.asarray(log.observations[row])))
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_the_bisimulation_loss_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    code, mean, reward = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=5)
    deviation, terminal = rng.uniform(0.1, 1, size=(5, 3)), np.asarray([0, 1, 0, 1, 0]) > 0
    squares = []
    for i in range(5):
        for j in range(5):
            if terminal[i] != terminal[j]:
                continue
            wasserstein = np.sqrt(
                np.sum((mean[i] - mean[j]) ** 2) + np.sum((deviation[i] - deviation[j]) ** 2)
            )
            wanted = abs(reward[i] - reward[j]) + 0.9 * (0 if terminal[i] else wasserstein)
            squares.append((np.linalg.norm(code[i] - code[j]) - wanted) ** 2)
    arrays = [jnp.asarray(x, jnp.float32) for x in (code, reward, mean, deviation)]
    found = bisimulation_loss(arrays[0], Expected(*arrays[1:]), jnp.asarray(terminal), 0.9)
    np.testing.assert_allclose(found, np.mean(squares), rtol=1e-5)


def test_the_loss_brings_codes_together_of_which_the_same_follows():
    same = Expected(jnp.ones(2), jnp.zeros((2, 1)), jnp.ones((2, 1)))
    code = jnp.asarray([[0.0], [2.0]])
    slope = jax.grad(lambda z: bisimulation_loss(z, same, jnp.zeros(2, bool), 0.9))(code)
    assert slope[0, 0] < 0 < slope[1, 0]


def test_it_refuses_continuous_actions():
    data = Dataset.from_arrays(np.zeros((3, 1)), np.zeros((3, 1)), np.zeros(3), np.ones(3, bool))
    with pytest.raises(SpecificationError, match="HistoryCQL needs discrete actions"):
        HistoryCQL().init(data.spaces, key=jax.random.key(0))
