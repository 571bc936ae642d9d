"""DQN and discrete CQL in double-precision NumPy."""

import equinox as eqx
import jax
import numpy as np

from .numpy_twin import (
    CHOICES,
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_gradient,
    expect_same,
    leaves,
    move,
    standardised,
    update,
)

FIELDS = {
    "learning_rate": 1e-2,
    "polyak_rate": 0.5,
    "target_update_interval": 2,
    "normalise_observations": True,
    "hidden_sizes": (8, 8),
}


def expect_three_updates(method, weight=None):
    """Fails unless `method` takes the steps of its twin; `weight`: of the conservative penalty."""
    double = method.double_q
    state = begin(method, True)
    critic, target = (Perceptron(leaves(state.critic)) for _ in range(2))
    adam = Adam(critic.parameters, 1e-2)
    rows = np.arange(ROWS)
    for i in range(3):
        data = batch(i, True)
        # Some errors beyond the Huber bound, so that both of its branches are tested.
        data = eqx.tree_at(lambda d: d.reward, data, 3.0 * data.reward)
        reward = np.asarray(data.reward, np.float64)
        state, metrics = update(method, state, data, key=jax.random.key(i))

        following = standardised(data.next_observation)
        judged = target.forward(following)
        chosen = critic.forward(following) if double else judged
        y = np.where(data.terminal, reward, reward + 0.99 * judged[rows, chosen.argmax(-1)])
        values, action = critic.forward(standardised(data.observation)), np.asarray(data.action)
        difference = values[rows, action] - y
        size = np.abs(difference)
        loss = np.mean(np.where(size < 1, 0.5 * difference**2, size - 0.5))
        np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-5)
        logged = np.eye(CHOICES)[action]
        slope = np.clip(difference, -1, 1)[:, None] * logged
        if weight is not None:
            probability = np.exp(values) / np.exp(values).sum(-1, keepdims=True)
            gap = np.mean(np.log(np.exp(values).sum(-1)) - values[rows, action])
            np.testing.assert_allclose(metrics["conservative_gap"], gap, rtol=1e-5)
            slope = slope + weight * (probability - logged)
        adam.step(critic.backward(slope / ROWS)[0])
        if i == 1:
            move(target, critic.parameters, 0.5)
    expect_gradient(state.optimiser, adam)
    expect_same(state.critic, critic.parameters)
    expect_same(state.target, target.parameters)
