"""TD3 against NumPy and on problems with known answers; `test_ddpg.py` compares it with DDPG."""

import jax
import numpy as np
import pytest

from headwater.methods.control.online.td3 import TD3

from ..numpy_twin import (
    ACTION,
    OBSERVATION,
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_same,
    expect_twins,
    leaves,
    member,
    move,
    update,
)
from ..small_problems import BANDIT_SETTINGS, expect_best_action, expect_bootstrapping


@pytest.mark.parity
def test_four_updates_with_noise_and_delay():
    method = TD3(
        learning_rate=1e-2,
        target_policy_noise=0.4,
        target_noise_clip=0.3,
        polyak_rate=0.1,
        hidden_sizes=(8, 8),
    )
    state = begin(method, False)
    actor, target_actor = (Perceptron(leaves(state.actor)) for _ in range(2))
    twins, targets = ([Perceptron(member(state.critics, i)) for i in (0, 1)] for _ in "ab")
    actor_adam = Adam(actor.parameters, 1e-2)
    critic_adams = [Adam(c.parameters, 1e-2) for c in twins]
    for i in range(4):
        data, key = batch(i, False), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)

        s, a = (np.asarray(x, np.float64) for x in (data.observation, data.action))
        following = np.asarray(data.next_observation, np.float64)
        noise = 0.4 * np.asarray(jax.random.normal(key, (ROWS, ACTION)), np.float64)
        smeared = np.tanh(target_actor.forward(following)) + np.clip(noise, -0.3, 0.3)
        joined = np.concatenate([following, np.clip(smeared, -1.0, 1.0)], -1)
        lower = np.min([c.forward(joined)[:, 0] for c in targets], axis=0)
        y = np.asarray(data.reward, np.float64)
        y = np.where(data.terminal, y, y + 0.99 * lower)
        total = 0.0
        for critic, adam in zip(twins, critic_adams):
            difference = critic.forward(np.concatenate([s, a], -1))[:, 0] - y
            total += np.mean(difference**2)
            adam.step(critic.backward(2 * difference[:, None] / ROWS)[0])
        np.testing.assert_allclose(metrics["critic_loss"], total, rtol=1e-5)
        if i % 2 == 0:
            continue

        action = np.tanh(actor.forward(s))
        q = twins[0].forward(np.concatenate([s, action], -1))[:, 0]
        np.testing.assert_allclose(metrics["actor_loss"], -np.mean(q), rtol=1e-4)
        _, slope = twins[0].backward(np.full((ROWS, 1), -1.0 / ROWS))
        actor_adam.step(actor.backward(slope[:, OBSERVATION:] * (1 - action**2))[0])
        move(target_actor, actor.parameters, 0.1)
        for target, critic in zip(targets, twins):
            move(target, critic.parameters, 0.1)

    expect_same(state.actor, actor.parameters)
    expect_same(state.target_actor, target_actor.parameters)
    expect_twins(state.critics, twins)
    expect_twins(state.target_critics, targets)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(TD3(**BANDIT_SETTINGS), key)


@pytest.mark.oracle
def test_truncated_rows_bootstrap_and_terminal_rows_do_not(key):
    fields = {**BANDIT_SETTINGS, "discount": 0.8, "polyak_rate": 0.05}
    expect_bootstrapping(TD3(**fields), key)
