"""DDPG against NumPy, against TD3 without its changes, and on problems with known answers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.online.ddpg import DDPG
from headwater.methods.control.online.td3 import TD3

from .. import identities
from ..numpy_twin import (
    OBSERVATION,
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_gradient,
    expect_same,
    leaves,
    member,
    move,
    standardised,
    update,
)
from ..small_problems import expect_best_action, expect_bootstrapping

RATES = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "hidden_sizes": (32, 32)}


@pytest.mark.parity
def test_three_updates():
    method = DDPG(
        actor_learning_rate=5e-3,
        critic_learning_rate=1e-2,
        polyak_rate=0.1,
        normalise_observations=True,
        hidden_sizes=(8, 8),
    )
    state = begin(method, False)
    actor, target_actor = (Perceptron(leaves(state.actor)) for _ in range(2))
    critic, target_critic = (Perceptron(member(state.critics, 0)) for _ in range(2))
    actor_adam, critic_adam = Adam(actor.parameters, 5e-3), Adam(critic.parameters, 1e-2)
    for i in range(3):
        data = batch(i, False)
        state, metrics = update(method, state, data, key=jax.random.key(i))

        s, a = standardised(data.observation), np.asarray(data.action, np.float64)
        following = standardised(data.next_observation)
        joined = np.concatenate([following, np.tanh(target_actor.forward(following))], -1)
        y = np.asarray(data.reward, np.float64)
        y = np.where(data.terminal, y, y + 0.99 * target_critic.forward(joined)[:, 0])
        difference = critic.forward(np.concatenate([s, a], -1))[:, 0] - y
        critic_adam.step(critic.backward(2 * difference[:, None] / ROWS)[0])
        np.testing.assert_allclose(metrics["critic_loss"], np.mean(difference**2), rtol=1e-5)

        action = np.tanh(actor.forward(s))
        q = critic.forward(np.concatenate([s, action], -1))[:, 0]
        np.testing.assert_allclose(metrics["actor_loss"], -np.mean(q), rtol=1e-4)
        _, slope = critic.backward(np.full((ROWS, 1), -1.0 / ROWS))
        actor_adam.step(actor.backward(slope[:, OBSERVATION:] * (1 - action**2))[0])
        move(target_actor, actor.parameters, 0.1)
        move(target_critic, critic.parameters, 0.1)

    expect_gradient(state.actor_optimiser, actor_adam)
    expect_same(state.actor, actor.parameters)
    expect_same(state.target_actor, target_actor.parameters)
    expect_same(jax.tree.map(lambda leaf: leaf[0], state.critics), critic.parameters)
    expect_same(jax.tree.map(lambda leaf: leaf[0], state.target_critics), target_critic.parameters)


@pytest.mark.equivalence("TD3")
def test_it_is_td3_without_its_three_changes():
    # Two equal critics have the minimum of one.
    spaces, sizes = identities.problem(), {"hidden_sizes": identities.WIDTHS, "polyak_rate": 0.5}
    ddpg = DDPG(actor_learning_rate=1e-2, critic_learning_rate=1e-2, **sizes)
    td3 = TD3(learning_rate=1e-2, policy_delay=1, target_policy_noise=0.0, **sizes)
    one = identities.begin(ddpg, spaces)
    twice = lambda leaf: jnp.concatenate([leaf, leaf])
    both = identities.begin(td3, spaces)
    twins = jax.tree.map(twice, one.critics)
    other = dataclasses.replace(
        both, actor=one.actor, target_actor=one.actor, critics=twins, target_critics=twins
    )
    batches = identities.several()
    learned = identities.learn(ddpg, one, *batches)
    plain = identities.learn(td3, other, *batches)
    first = lambda tree: jax.tree.map(lambda leaf: leaf[:1], tree)
    for name in ("actor", "target_actor"):
        identities.expect_same(getattr(learned, name), getattr(plain, name))
    for name in ("critics", "target_critics"):
        identities.expect_same(getattr(learned, name), first(getattr(plain, name)))
    identities.expect_different(learned.actor, one.actor)
    # Each of the three changes is one.
    for change in ({"policy_delay": 2}, {"target_policy_noise": 1.0}):
        changed = identities.learn(dataclasses.replace(td3, **change), other, *batches)
        identities.expect_different(plain.critics, changed.critics)
    apart = eqx.tree_at(lambda s: s.target_critics, other, both.critics)
    identities.expect_different(plain.critics, identities.learn(td3, apart, *batches).critics)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(DDPG(**RATES), key)


@pytest.mark.oracle
def test_truncated_rows_bootstrap_and_terminal_rows_do_not(key):
    expect_bootstrapping(DDPG(**RATES, discount=0.8, polyak_rate=0.05), key)
