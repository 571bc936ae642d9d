"""AWAC against NumPy, against cloning, and on problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.awac import AWAC

from .. import identities
from ..numpy_twin import (
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
from ..small_problems import (
    BANDIT_SETTINGS,
    CHAIN_SETTINGS,
    CHAIN_STATES,
    COUNTS,
    PROBE,
    REWARDS,
    arms,
    bandit,
    best_action,
    chain,
    chain_values,
    expect_bootstrapping,
    greedy,
    trained,
    values,
)

LAMBDA, LARGEST = 0.4, 1.3


LAMBDA, LARGEST = 0.4, 1.3


def _softmax(logits):
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    return probability / probability.sum(-1, keepdims=True)


def _normal(key, log_std):
    """The standard normal noise that the method draws, in units of the policy's deviation."""
    return np.exp(log_std) * np.asarray(jax.random.normal(key, (ROWS, ACTION)), np.float64)


@pytest.mark.parity
@pytest.mark.parametrize("discrete", [True, False])
def test_three_updates(discrete):
    method = AWAC(
        advantage_temperature=LAMBDA,
        max_weight=LARGEST,
        learning_rate=1e-2,
        polyak_rate=0.1,
        hidden_sizes=(8, 8),
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


@pytest.mark.equivalence("BC")
def test_an_infinite_temperature_is_cloning():
    fields = {"learning_rate": 1e-2, "hidden_sizes": identities.WIDTHS}
    spaces = identities.problem(True)
    awac, bc = AWAC(advantage_temperature=float("inf"), **fields), BC(**fields)
    begun = identities.begin(awac, spaces)
    clone = eqx.tree_at(lambda s: s.actor, identities.begin(bc, spaces), begun.actor)
    batches = identities.several(True)
    one, other = identities.learn(awac, begun, *batches), identities.learn(bc, clone, *batches)
    identities.expect_same(one.actor, other.actor, 1e-6)
    identities.expect_different(begun.actor, one.actor)


@pytest.mark.oracle
def test_awac_fits_the_weighted_actions(key):
    # Uniform actions weighted by exp(-4 (a - a*)² / λ) are normal with variance λ / 8. The bound on
    # the weights, which the noise in a sampled V reaches, makes it somewhat wider.
    problem, data = bandit(key)
    method = AWAC(advantage_temperature=0.2, **BANDIT_SETTINGS)
    state = trained(method, problem, data, 1500)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.1)
    spread = np.exp(state.actor.log_std[0]) / np.sqrt(0.2 / 8)
    assert 0.95 < spread < 1.5


@pytest.mark.oracle
def test_truncated_rows_bootstrap_and_terminal_rows_do_not(key):
    fields = {**BANDIT_SETTINGS, "discount": 0.8, "polyak_rate": 0.05}
    expect_bootstrapping(AWAC(**fields), key)


@pytest.mark.oracle
def test_awac_weighs_the_behaviour_by_the_exponential_of_the_value():
    problem, data = arms(COUNTS, REWARDS)
    method = AWAC(advantage_temperature=0.5, learning_rate=3e-3, hidden_sizes=(32,))
    state = trained(method, problem, data, 2000)
    weight = COUNTS * np.exp(REWARDS / 0.5)
    probability = jax.nn.softmax(state.actor(jnp.ones(1)).logits)
    np.testing.assert_allclose(probability, weight / weight.sum(), atol=5e-3)
    best = method.value(state, jnp.ones(1), jnp.asarray(1, jnp.int32))
    np.testing.assert_allclose(best, REWARDS[1], atol=0.01)


@pytest.mark.oracle
def test_awac_evaluates_and_weighs_its_own_policy_on_a_chain():
    problem, data = chain()
    method = AWAC(advantage_temperature=0.5, polyak_rate=0.05, **CHAIN_SETTINGS)
    state = trained(method, problem, data, 3000)
    policy = jax.nn.softmax(state.actor(jnp.eye(CHAIN_STATES)).logits)
    exact = chain_values(np.asarray(policy, np.float64))
    learned = np.asarray(values(method, state, data)).reshape(CHAIN_STATES, 2)
    np.testing.assert_allclose(learned, exact, atol=0.02)
    # The behaviour is uniform, so at the fixed point the policy is a softmax of its own values.
    np.testing.assert_allclose(policy, jax.nn.softmax(jnp.asarray(exact) / 0.5), atol=0.02)
