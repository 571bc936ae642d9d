"""ReBRAC against NumPy, against TD3+BC, and on problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.methods.control.offline.rebrac import ReBRAC
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
    update,
)
from ..small_problems import (
    BANDIT_SETTINGS,
    expect_best_action,
    expect_bootstrapping,
    expect_mean_logged_action,
)


@pytest.mark.parity
def test_three_updates():
    method = ReBRAC(
        actor_cloning_weight=0.3,
        critic_cloning_weight=0.7,
        target_policy_noise=0.0,
        learning_rate=1e-2,
        polyak_rate=0.1,
        hidden_sizes=(8, 8),
    )
    state = begin(method, False)
    assert all(np.all(b == np.float32(0.1)) for b in state.actor.network.biases[:-1])
    assert np.max(np.abs(state.actor.network.weights[-1])) <= 1e-3
    assert np.max(np.abs(state.critics.stacked.network.weights[-1])) <= 3e-3
    actor, target_actor = (Perceptron(leaves(state.actor)) for _ in range(2))
    twins, target_twins = (
        [Perceptron(member(state.critics, i), norm=True) for i in (0, 1)] for _ in "ab"
    )
    actor_adam = Adam(actor.parameters, 1e-2)
    critic_adams = [Adam(c.parameters, 1e-2) for c in twins]
    for i in range(3):
        data = batch(i, False)
        state, metrics = update(method, state, data, key=jax.random.key(i))

        s, a, following, reward, logged = (
            np.asarray(column, np.float64)
            for column in (
                data.observation,
                data.action,
                data.next_observation,
                data.reward,
                data.next_action,
            )
        )
        next_action = np.tanh(target_actor.forward(following))
        joined = np.concatenate([following, next_action], -1)
        lower = np.min([c.forward(joined)[:, 0] for c in target_twins], axis=0)
        penalty = 0.7 * np.sum((next_action - logged) ** 2, -1)
        penalty = np.where(data.truncated, 0.0, penalty)
        y = np.where(data.terminal, reward, reward + 0.99 * (lower - penalty))
        total = 0.0
        for critic, adam in zip(twins, critic_adams):
            difference = critic.forward(np.concatenate([s, a], -1))[:, 0] - y
            total += np.mean(difference**2)
            adam.step(critic.backward(2 * difference[:, None] / ROWS)[0])
        np.testing.assert_allclose(metrics["critic_loss"], total, rtol=1e-4)
        if i % 2:
            continue

        previous = [p.copy() for p in actor.parameters]
        action = np.tanh(actor.forward(s))
        joined = np.concatenate([s, action], -1)
        both = np.asarray([c.forward(joined)[:, 0] for c in twins])
        q, which = both.min(0), both.argmin(0)
        size = np.mean(np.abs(q))
        loss = np.mean(0.3 * np.sum((action - a) ** 2, -1) - q / size)
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-3)
        slope = 0.6 * (action - a) / ROWS
        for index, critic in enumerate(twins):
            chosen = np.where(which == index, -1.0 / (size * ROWS), 0.0)
            slope += critic.backward(chosen[:, None])[1][:, OBSERVATION:]
        actor_adam.step(actor.backward(slope * (1 - action**2))[0])
        move(target_actor, previous, 0.1)
        for target, critic in zip(target_twins, twins):
            move(target, critic.parameters, 0.1)

    expect_gradient(state.actor_optimiser, actor_adam)
    expect_same(state.actor, actor.parameters, 1e-4)
    expect_same(state.target_actor, target_actor.parameters, 1e-4)
    expect_twins(state.critics, twins, 1e-4)
    expect_twins(state.target_critics, target_twins, 1e-4)


def test_says_what_is_missing_without_the_next_action():
    method = ReBRAC(hidden_sizes=(8,))
    state = begin(method, False)
    data = batch(0, False)
    data = eqx.tree_at(lambda d: d.next_action, data, None)
    with pytest.raises(SpecificationError, match=r"next_action.*use TD3BC"):
        method.update(state, data, key=jax.random.key(0))


@pytest.mark.equivalence("TD3BC")
def test_without_penalties_it_has_the_critics_of_td3():
    # The targets share the smoothing noise, so it must be drawn alike too.
    fields = {"learning_rate": 1e-3, "hidden_sizes": identities.WIDTHS}
    spaces = identities.problem(False)
    td3 = TD3BC(alpha=0.0, **fields)
    rebrac = ReBRAC(actor_cloning_weight=0.0, critic_cloning_weight=0.0, layer_norm=False, **fields)
    begun = identities.begin(td3, spaces)
    planted = _plant(identities.begin(rebrac, spaces), begun)
    rows = identities.batch(0)
    one, other = identities.learn(td3, begun, rows), identities.learn(rebrac, planted, rows)
    identities.expect_same(one.critics, other.critics, 1e-6)
    penalised = eqx.tree_at(lambda m: m.critic_cloning_weight, rebrac, 0.5)
    other = identities.learn(penalised, planted, rows)
    identities.expect_different(one.critics, other.critics)


@pytest.mark.equivalence("TD3BC")
def test_with_one_critic_twice_it_is_td3_bc():
    # Then Q_1 is the smaller one, and α weighs Q where β weighs the distance: β = 1 / (α · size).
    fields = {"learning_rate": 1e-2, "policy_delay": 1, "hidden_sizes": identities.WIDTHS}
    spaces = identities.problem(False)
    td3 = TD3BC(alpha=2.5, **fields)
    weight = 1 / (2.5 * identities.SIZE)
    rebrac = ReBRAC(
        actor_cloning_weight=weight, critic_cloning_weight=0.0, layer_norm=False, **fields
    )
    begun = identities.begin(td3, spaces)
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), begun.critics)
    begun = eqx.tree_at(lambda s: (s.critics, s.target_critics), begun, (same, same))
    planted = _plant(identities.begin(rebrac, spaces), begun)
    rows = identities.batch(0)
    one, other = identities.learn(td3, begun, rows), identities.learn(rebrac, planted, rows)
    identities.expect_same(one.actor, other.actor, 1e-5)
    identities.expect_different(begun.actor, one.actor)


def _plant(state, source):
    def where(s):
        return s.actor, s.critics, s.target_actor, s.target_critics

    return eqx.tree_at(where, state, where(source))


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(ReBRAC(actor_cloning_weight=0.01, **BANDIT_SETTINGS), key)


@pytest.mark.oracle
def test_it_falls_back_on_the_mean_logged_action(key):
    expect_mean_logged_action(ReBRAC(actor_cloning_weight=1e4, **BANDIT_SETTINGS), key)


@pytest.mark.oracle
def test_truncated_rows_bootstrap_and_terminal_rows_do_not(key):
    fields = {**BANDIT_SETTINGS, "discount": 0.8, "polyak_rate": 0.05}
    expect_bootstrapping(ReBRAC(critic_cloning_weight=0.5, **fields), key)
