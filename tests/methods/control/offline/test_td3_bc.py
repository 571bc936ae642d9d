"""TD3+BC against NumPy, against cloning, and on problems with known answers."""

import equinox as eqx
import jax
import numpy as np
import pytest

from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.td3_bc import TD3BC

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
    expect_twins,
    leaves,
    member,
    move,
    standardised,
    update,
)
from ..small_problems import (
    BANDIT_SETTINGS,
    expect_best_action,
    expect_bootstrapping,
    expect_mean_logged_action,
)


@pytest.mark.parity
def test_four_updates():
    method = TD3BC(
        target_policy_noise=0.0, learning_rate=1e-2, polyak_rate=0.1, hidden_sizes=(8, 8)
    )
    state = begin(method, False)
    actor, target_actor = (Perceptron(leaves(state.actor)) for _ in range(2))
    twins, target_twins = ([Perceptron(member(state.critics, i)) for i in (0, 1)] for _ in "ab")
    actor_adam = Adam(actor.parameters, 1e-2)
    critic_adams = [Adam(c.parameters, 1e-2) for c in twins]
    for i in range(4):
        data = batch(i, False)
        state, metrics = update(method, state, data, key=jax.random.key(i))

        s, a = standardised(data.observation), np.asarray(data.action, np.float64)
        following = standardised(data.next_observation)
        terminal = np.asarray(data.terminal)
        joined = np.concatenate([following, np.tanh(target_actor.forward(following))], -1)
        lower = np.min([c.forward(joined)[:, 0] for c in target_twins], axis=0)
        y = np.asarray(data.reward, np.float64)
        y = np.where(terminal, y, y + 0.99 * lower)
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
        scale = 2.5 / np.mean(np.abs(q))
        loss = -scale * np.mean(q) + np.mean((action - a) ** 2)
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
        _, slope = twins[0].backward(np.full((ROWS, 1), -scale / ROWS))
        slope = slope[:, OBSERVATION:] + 2 * (action - a) / a.size
        actor_adam.step(actor.backward(slope * (1 - action**2))[0])
        move(target_actor, actor.parameters, 0.1)
        for target, critic in zip(target_twins, twins):
            move(target, critic.parameters, 0.1)

    expect_gradient(state.actor_optimiser, actor_adam)
    expect_same(state.actor, actor.parameters)
    expect_same(state.target_actor, target_actor.parameters)
    expect_twins(state.critics, twins)
    expect_twins(state.target_critics, target_twins)


def test_values_of_zero_do_not_divide_by_zero():
    method = TD3BC(policy_delay=1, hidden_sizes=(8,))
    state = begin(method, False)
    nothing = jax.tree.map(lambda leaf: 0.0 * leaf, state.critics)
    state = eqx.tree_at(lambda s: (s.critics, s.target_critics), state, (nothing, nothing))
    data = batch(0, False)
    silent = eqx.tree_at(lambda d: d.reward, data, 0.0 * data.reward)
    state, metrics = update(method, state, silent, key=jax.random.key(0))
    assert np.isfinite(metrics["actor_loss"])
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves(state.actor))


@pytest.mark.equivalence("BC")
def test_without_its_critic_it_is_cloning():
    fields = {"learning_rate": 1e-2, "hidden_sizes": identities.WIDTHS}
    spaces = identities.problem(False)
    td3, bc = TD3BC(alpha=0.0, policy_delay=1, **fields), BC(**fields)
    begun = identities.begin(td3, spaces)
    clone = eqx.tree_at(lambda s: s.actor, identities.begin(bc, spaces), begun.actor)
    batches = identities.several()
    one, other = identities.learn(td3, begun, *batches), identities.learn(bc, clone, *batches)
    identities.expect_same(one.actor, other.actor, 1e-6)
    identities.expect_different(begun.actor, one.actor)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(TD3BC(alpha=50.0, **BANDIT_SETTINGS), key)


@pytest.mark.oracle
def test_it_falls_back_on_the_mean_logged_action(key):
    expect_mean_logged_action(TD3BC(alpha=0.0, **BANDIT_SETTINGS), key)


@pytest.mark.oracle
def test_truncated_rows_bootstrap_and_terminal_rows_do_not(key):
    fields = {**BANDIT_SETTINGS, "discount": 0.8, "polyak_rate": 0.05}
    expect_bootstrapping(TD3BC(**fields), key)
