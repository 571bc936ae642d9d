"""AWAC against its twin in NumPy."""

import jax
import numpy as np
import pytest

from headwater.methods.control.offline.awac import AWAC

from .numpy_twin import (
    ACTION,
    CHOICES,
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_gradient,
    expect_same,
    expect_twins,
    leaves,
    member,
    move,
    standardised,
    update,
)

LAMBDA, LARGEST = 0.4, 1.3


def _softmax(logits):
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    return probability / probability.sum(-1, keepdims=True)


def _normal(key, log_std):
    """The standard normal noise that the method draws, in units of the policy's deviation."""
    return np.exp(log_std) * np.asarray(jax.random.normal(key, (ROWS, ACTION)), np.float64)


@pytest.mark.parametrize("discrete", [True, False])
def test_three_updates(discrete):
    method = AWAC(
        temperature=LAMBDA,
        largest_weight=LARGEST,
        learning_rate=1e-2,
        target_rate=0.1,
        widths=(8, 8),
    )
    state = begin(method, discrete)
    parameters = leaves(state.actor)
    log_std = np.zeros(0) if discrete else parameters.pop()
    actor = Perceptron(parameters)
    trained = actor.parameters if discrete else [*actor.parameters, log_std]
    actor_adam = Adam(trained, 1e-2)
    twins, target_twins = ([Perceptron(member(state.critics, i)) for i in (0, 1)] for _ in "ab")
    critic_adams = [Adam(c.parameters, 1e-2) for c in twins]

    def logged_value(critic, s, a):
        if discrete:
            return critic.forward(s)[np.arange(ROWS), a]
        return critic.forward(np.concatenate([s, a], -1))[:, 0]

    def policy_value(critics, s, key):
        output = actor.forward(s)
        if discrete:
            lower = np.min([c.forward(s) for c in critics], axis=0)
            return np.sum(_softmax(output) * lower, -1)
        action = np.clip(output + _normal(key, log_std), -1, 1)
        return np.min([logged_value(c, s, action) for c in critics], axis=0)

    bounded = 0
    for i in range(3):
        data = batch(i, discrete)
        key = jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        next_key, policy_key = jax.random.split(key)

        s, following = standardised(data.observation), standardised(data.next_observation)
        a = np.asarray(data.action) if discrete else np.asarray(data.action, np.float64)
        y = np.asarray(data.reward, np.float64)
        y = np.where(data.terminal, y, y + 0.99 * policy_value(target_twins, following, next_key))
        total = 0.0
        for critic, adam in zip(twins, critic_adams):
            difference = logged_value(critic, s, a) - y
            total += np.mean(difference**2)
            slope = 2 * difference[:, None] / ROWS
            adam.step(critic.backward(slope * np.eye(CHOICES)[a] if discrete else slope)[0])
        np.testing.assert_allclose(metrics["critic_loss"], total, rtol=1e-5)

        logged = np.min([logged_value(c, s, a) for c in twins], axis=0)
        advantage = logged - policy_value(twins, s, policy_key)
        weight = np.minimum(np.exp(advantage / LAMBDA), LARGEST)
        bounded += np.sum(weight == LARGEST)
        output = actor.forward(s)
        if discrete:
            log_density = np.log(_softmax(output)[np.arange(ROWS), a])
            slope = weight[:, None] * (_softmax(output) - np.eye(CHOICES)[a]) / ROWS
            gradients = actor.backward(slope)[0]
        else:
            noise = (a - output) / np.exp(log_std)
            log_density = np.sum(-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi), -1)
            gradients = actor.backward(-weight[:, None] * noise / np.exp(log_std) / ROWS)[0]
            gradients.append(np.sum(weight[:, None] * (1 - noise**2), 0) / ROWS)
        loss = -np.mean(weight * log_density)
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
        actor_adam.step(gradients)
        for target, critic in zip(target_twins, twins):
            move(target, critic.parameters, 0.1)

    assert 0 < bounded < 3 * ROWS
    expect_gradient(state.actor_optimiser, actor_adam)
    expect_same(state.actor, trained)
    expect_twins(state.critics, twins)
    expect_twins(state.target_critics, target_twins)
